"""Asking for a night of every cell, and taking it back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from lab.core.errors import UsageError
from lab.core.similar import nearest
from lab.core.steps import Steps
from lab.documents.fleet import MatrixCell
from lab.fleet.ledger import Ledger, LedgerCell, LedgerNight
from lab.fleet.matrix import row, unasked
from lab.fleet.plan import FleetPlan
from lab.fleet.queue import Queue
from lab.model.domain import Verdict
from lab.schedule.plan import parse_at


def ask(
    plan: FleetPlan, ledger: Ledger, queue: Queue, steps: Steps, day: str, names: Sequence[str], now: datetime
) -> LedgerNight:
    """Ask for the night `day` of the cells of these names, of all without any; what is asked for stays.

    Each is on record before the queue is told. A cell that no host fits is blocked at once. Raises UsageError
    for a name that is not in the plan and for a night that is closed; QueueError: the same again goes on.
    """
    wanted = [row(plan, cell) for cell in plan.cell if not names or cell.name in names]
    known = [cell.name for cell in plan.cell]
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"one of {', '.join(known)}"
            raise UsageError(f"there is no cell {name}", hint=hint)
    with ledger.writing():
        night = ledger.night(day) or LedgerNight(
            date=day,
            asked=_iso(now),
            closes=_iso(next_hour(plan.closes, now)),
            closed=None,
            told=(),
            cells=(),
        )
        if night.closed:
            raise UsageError(
                f"the night of {day} is closed since {night.closed}", hint="--date asks for another one"
            )
        new = [_asked(cell) for cell in wanted if night.cell(cell.name) is None]
        night = night.model_copy(update={"cells": (*night.cells, *new)})
        ledger.write(night)
        for each in night.cells:
            if each.entry.state != "open" or each.request is not None or each.cell not in wanted:
                continue
            with steps.step("fleet.ask", f"{day}/{each.cell.name}") as step:
                request = queue.ask(each.cell.name, day)
                step.result = f"one of {', '.join(each.cell.hosts)} is to take it"
            night = night.replaced(
                each.with_entry(word="it waits for a host").model_copy(update={"request": request})
            )
            ledger.write(night)
    return night


def _asked(cell: MatrixCell) -> LedgerCell:
    entry = unasked(cell.name)
    if not cell.hosts:
        tags = ", ".join(cell.tags)
        word = f"no host of the fleet has all of its tags: {tags}" if tags else "the fleet has no host"
        entry = entry.model_copy(update={"state": "settled", "verdict": Verdict.BLOCKED, "word": word})
    return LedgerCell(cell=cell, entry=entry, request=None)


def cancel(
    ledger: Ledger, queue: Queue, steps: Steps, day: str, names: Sequence[str], now: datetime
) -> LedgerNight:
    """Take back what is open of a night, of these cells or of all: it is inconclusive, for that reason.

    Raises UsageError where there is no such night or cell, QueueError: the same again goes on.
    """
    with ledger.writing():
        night = ledger.night(day)
        if night is None:
            raise UsageError(
                f"nothing was asked for on {day}",
                hint=f"there are {', '.join(ledger.dates()[:5]) or 'no nights'}",
            )
        for name in names:
            if night.cell(name) is None:
                raise UsageError(f"the night of {day} has no cell {name}")
        for each in night.open:
            if names and each.cell.name not in names:
                continue
            with steps.step("fleet.cancel", f"{day}/{each.cell.name}"):
                if each.request is not None:
                    queue.cancel(each.request)
            word = f"cancelled by hand at {_iso(now)}" + (
                f", on {each.entry.host}" if each.entry.host else ""
            )
            new = each.with_entry(state="settled", verdict=Verdict.INCONCLUSIVE, word=word)
            night = night.replaced(new)
            ledger.write(night)
    return night


def next_hour(at: str, now: datetime) -> datetime:
    """The next time the clock of this machine shows HH:MM, after `now`; summer time is looked at."""
    hour, minute = parse_at(at)
    local = now.astimezone()
    day = local.date()
    while True:
        then = datetime(day.year, day.month, day.day, hour, minute).astimezone()
        if then > local:
            return then.astimezone(UTC)
        day += timedelta(days=1)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")

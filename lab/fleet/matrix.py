"""The matrix: cells by nights, from the fleet's own nights and from those of the history that have a key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from lab.documents.fleet import (
    CellExpectation,
    CellSetting,
    FleetMatrix,
    MatrixCell,
    MatrixEntry,
    MatrixNight,
)
from lab.fleet.ledger import LedgerNight, is_date
from lab.fleet.plan import FleetCell, FleetPlan
from lab.history.model import ENDED, NESTED_BOOT, Night
from lab.model.domain import Claim, Verdict

NIGHTS = 60
"""How many columns a matrix has, unless it is asked for more."""


def row(plan: FleetPlan, cell: FleetCell) -> MatrixCell:
    """A cell of the plan as the matrix has it."""
    return MatrixCell(
        name=cell.name,
        tags=cell.tags,
        hosts=tuple(plan.hosts_for(cell)),
        settings=tuple(CellSetting(key=key, value=text) for key, text in sorted(cell.settings.items())),
        expects=CellExpectation(**cell.expects.model_dump()),
        planned=True,
    )


def settled(entry: MatrixEntry, night: Night, host: str, weighed: tuple[Verdict, str]) -> MatrixEntry:
    """The entry with the word of a night that ended: `weighed` is its verdict for this cell, and why."""
    boots = night.samples(NESTED_BOOT)
    verdict, reason = weighed
    return entry.model_copy(
        update={
            "state": "settled",
            "verdict": verdict,
            "claim": Claim(night.claim) if night.claim else "",
            "host": host or entry.host,
            "word": reason or night.verdict,
            "uuid": night.uuid,
            "started": night.started,
            "seconds": night.seconds,
            "nested_boot": boots[0] if boots else None,
            "report": night.report,
        }
    )


def unasked(cell: str) -> MatrixEntry:
    """The entry of a cell before anything is known of it."""
    return MatrixEntry(
        cell=cell,
        state="open",
        verdict=None,
        claim="",
        host="",
        word="it is not asked for yet",
        uuid="",
        started=None,
        seconds=None,
        nested_boot=None,
        report="",
        late=(),
    )


def matrix(
    plan: FleetPlan,
    ledger: Sequence[LedgerNight],
    history: Iterable[Night] = (),
    *,
    limit: int = NIGHTS,
    page: str = "",
) -> FleetMatrix:
    """The newest `limit` nights of every cell.

    `ledger` is what the fleet asked for, newest first; `history` may have further nights with keys, such as
    those that were imported by hand or from another road: they stand beside those of the fleet, and replace
    none. What an earlier night was asked for under a name is shown as it is in the plan now.
    """
    known = [row(plan, cell) for cell in plan.cell]
    columns = {night.date: column(night) for night in ledger}
    gone = {each.cell.name: each.cell.model_copy(update={"planned": False, "hosts": ()})
            for night in ledger for each in night.cells}  # fmt: skip
    for night in sorted(history, key=lambda each: each.started, reverse=True):
        date, _, cell = night.key.partition("/")
        if not cell or night.state != ENDED or not is_date(date):
            continue
        its = columns.setdefault(
            date, MatrixNight(date=date, asked=None, closes=None, closed=None, entries=())
        )
        if all(entry.cell != cell for entry in its.entries):
            entries = (
                *its.entries,
                settled(unasked(cell), night, "", (Verdict(night.verdict), night.reason)),
            )
            columns[date] = its.model_copy(update={"entries": entries})
            gone.setdefault(cell, _stranger(cell))
    names = {cell.name for cell in known}
    cells = [*known, *(gone[name] for name in sorted(gone) if name not in names)]
    order = {cell.name: place for place, cell in enumerate(cells)}
    nights = [
        each.model_copy(update={"entries": tuple(sorted(each.entries, key=lambda entry: order[entry.cell]))})
        for _, each in sorted(columns.items(), reverse=True)[: limit if limit > 0 else None]
    ]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return FleetMatrix(made=made, cells=tuple(cells), nights=tuple(nights), page=page)


def column(night: LedgerNight) -> MatrixNight:
    """A night as the matrix has it."""
    return MatrixNight(
        date=night.date,
        asked=night.asked,
        closes=night.closes,
        closed=night.closed,
        entries=tuple(each.entry for each in night.cells),
    )


def _stranger(name: str) -> MatrixCell:
    """A cell that only the history knows: what it was asked to be is not on record."""
    return MatrixCell(
        name=name,
        tags=(),
        hosts=(),
        settings=(),
        expects=CellExpectation(host="", virtualbox="", processor=""),
        planned=False,
    )

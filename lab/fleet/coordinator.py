"""What the tasks of a coordinator share: the plan in force, and a gathering from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from lab.core import files
from lab.core.errors import UsageError
from lab.documents.fleet import FleetMatrix
from lab.fleet import pulse, telling
from lab.fleet.gathering import Gathering
from lab.fleet.ledger import Ledger, LedgerNight
from lab.fleet.matrix import NIGHTS, matrix
from lab.fleet.places import Coordinator
from lab.fleet.plan import FleetPlan
from lab.fleet.queue import Queue
from lab.history.store import History
from lab.nights import importing, keeping
from lab.nights.telling import channels
from lab.notify.sending import Channel
from lab.reports.html import matrix as pages
from lab.workflow.session import Session

_TOLD_NIGHTS = 3
"""How many of the newest nights are still to be told of."""


def draw(session: Session, document: FleetMatrix) -> Path | None:
    """Write page and badge beside the matrix; None where that cannot be, such as on a full disk."""
    try:
        return pages.write(document, places(session).folder)
    except OSError as error:
        session.steps.note(f"the matrix could not be drawn: {error}")
        return None


@dataclass(frozen=True)
class Ways:
    """What a gathering reaches the world by; tests pass their own."""

    queue: Callable[[Path], Queue] = Queue
    channels: Callable[[Session], Sequence[Channel]] = channels
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    silent_seconds: float = pulse.SILENT_SECONDS
    page: Callable[[Session, FleetMatrix], Path | None] = draw
    """Draws the matrix for a person; returns the file."""


REAL = Ways()


def places(session: Session) -> Coordinator:
    """Where this coordinator's files are."""
    return Coordinator(session.settings.state_dir)


def plan_in_force(session: Session) -> FleetPlan:
    """The plan that fleet.up read last. Raises UsageError where it never did; DamagedFileError."""
    path = places(session).plan
    try:
        return FleetPlan.model_validate_json(files.read_text(path))
    except FileNotFoundError:
        raise UsageError(
            "this machine is no coordinator of a fleet", hint="`invoke fleet.up` makes it one: docs/fleet.md"
        ) from None
    except ValidationError as error:
        raise files.DamagedFileError(
            path, "no plan of a fleet", "`invoke fleet.up` writes it anew"
        ) from error


@dataclass(frozen=True)
class Gathered:
    """What a gathering did: the nights it closed, and what a person should know."""

    closed: list[LedgerNight]
    notes: list[str]
    matrix: FleetMatrix


def gather(session: Session, ways: Ways = REAL) -> Gathered:
    """Take in what was handed in, close the nights that are due, write the matrix, tell somebody once."""
    here, plan = places(session), plan_in_force(session)
    ledger = Ledger(here)
    with ledger.writing(session.steps.note), keeping.opened(session) as history:
        gathering = Gathering(
            ledger,
            ways.queue(here.socket),
            pulse.read(here.pulse, ways.silent_seconds),
            lambda path: importing.take(session, history, path)[0],
            ways.now(),
        )
        closed = gathering.gather()
        document = written(session, plan, ledger, history, ways)
        notes = list(gathering.notes)
        for day in ledger.dates()[:_TOLD_NIGHTS]:
            night = ledger.night(day)
            if night is not None and night.closed:
                report = document.page or str(here.matrix)
                notes += telling.tell(session, ledger, night, ways.channels(session), report)
    return Gathered(closed, notes, document)


def written(session: Session, plan: FleetPlan, ledger: Ledger, history: History, ways: Ways) -> FleetMatrix:
    """The matrix as it is now, written down as document and page."""
    document = matrix(plan, ledger.nights(NIGHTS), history.nights(), limit=NIGHTS)
    if page := ways.page(session, document):
        document = document.model_copy(update={"page": str(page)})
    files.write_json(ledger.places.matrix, document.as_json())
    return document


def shown(session: Session, limit: int) -> FleetMatrix:
    """The newest `limit` nights, all for 0, without a gathering."""
    here = places(session)
    with keeping.opened(session) as history:
        return matrix(plan_in_force(session), Ledger(here).nights(limit), history.nights(), limit=limit)

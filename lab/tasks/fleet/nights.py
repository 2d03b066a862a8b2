"""fleet.run, fleet.cancel, fleet.gather, fleet.matrix: the nights of a fleet, on its coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lab.core.errors import ExitCode, UsageError
from lab.documents.fleet import FleetNight
from lab.fleet import asking
from lab.fleet.coordinator import REAL, Ways, gather, places, plan_in_force, shown
from lab.fleet.ledger import Ledger, is_date
from lab.fleet.matrix import column
from lab.tasks.fleet.showing import matrix_shown, nights_shown
from lab.workflow.session import Reply, Session


def run(session: Session, cells: Sequence[str] = (), date: str = "", ways: Ways = REAL) -> Reply:
    """Ask for a night of these cells, of all without any. What is asked for already stays as it is."""
    fleet, here, now = plan_in_force(session), places(session), ways.now()
    day = _day(date, now)
    night = asking.ask(fleet, Ledger(here), ways.queue(here.socket), session.steps, day, cells, now)
    notes = gather(session, ways).notes
    night = Ledger(here).night(day) or night
    document = FleetNight(action="run", nights=(column(night),), notes=tuple(notes))
    return Reply.of(document, *nights_shown(document.nights), *notes)


def cancel(session: Session, cells: Sequence[str] = (), date: str = "", ways: Ways = REAL) -> Reply:
    """Take back what is open of a night: of these cells, of all without any."""
    here, now = places(session), ways.now()
    plan_in_force(session)
    notes = gather(session, ways).notes  # what was handed in has its word: it is not cancelled
    day = _day(date, now)
    night = asking.cancel(Ledger(here), ways.queue(here.socket), session.steps, day, cells, now)
    document = FleetNight(action="cancel", nights=(column(night),), notes=tuple(notes))
    return Reply.of(document, *nights_shown(document.nights), *notes)


def take_in(session: Session, ways: Ways = REAL) -> Reply:
    """fleet.gather: take in what was handed in, close what is due; the master has it run."""
    gathered = gather(session, ways)
    nights = tuple(column(night) for night in gathered.closed)
    document = FleetNight(action="gather", nights=nights, notes=tuple(gathered.notes))
    return Reply.of(document, *nights_shown(nights), *gathered.notes)


def matrix(session: Session, nights: int = 14, ways: Ways = REAL) -> Reply:
    """Cells by nights, after a gathering; all nights for 0."""
    if nights < 0:
        raise UsageError(f"--nights {nights} is less than no night", hint="0 shows all")
    gathered = gather(session, ways)
    document = shown(session, nights).model_copy(update={"page": gathered.matrix.page})
    return Reply.of(document, *matrix_shown(document), *gathered.notes, code=ExitCode.DONE)


def _day(text: str, now: datetime) -> str:
    """The day of a night: today's by this machine's clock where none is given."""
    day = text or now.astimezone().date().isoformat()
    if not is_date(day):
        raise UsageError(f"{text!r} is no day", hint="such as --date 2026-12-01")
    return day

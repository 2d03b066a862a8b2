"""What follows from a night on record: findings, its report, telling of it. None of it changes the verdict.

Each part is done once, however often this is begun: what a killed command left undone, the next night does.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.errors import InterruptedByUser, LabError
from lab.history.model import Night, NightFinding
from lab.history.regressions import findings
from lab.history.store import History
from lab.nights import known, telling
from lab.nights.reporting import report
from lab.notify.sending import Channel
from lab.workflow.session import Session

LATE = "its command was ended before it could tell of this night: a later one does"


def follow(session: Session, history: History, channels: Sequence[Channel], key: int) -> Night:
    """Do what is left to be done of an ended night; returns the night as updated.

    Raises InterruptedByUser and HistoryError; then the night stays untold.
    """
    night, back = history.night(key), session.settings.nightly.look_back
    differing = findings(night, history.alike(night, back), history.before(night, back))
    history.set_findings(key, _with_known(session, history, night, differing))
    if not night.report:
        _report(history, history.night(key))
    if telling.tell(session, history.night(key), history, channels):
        history.mark_told(key)
    return history.night(key)


def catch_up(session: Session, history: History, channels: Sequence[Channel], tonight: int) -> None:
    """Tell of the nights before that nobody was told of, oldest first.

    Without channels, or where nightly.notify is never, tonight gets a note about it.
    """
    for night in history.untold(tonight):
        if not night.deliveries:
            _note(history, night, LATE)
        if session.settings.nightly.notify == "never" or not channels:
            what = f"{night.claim or 'the night'} {night.verdict}: {night.reason}"
            history.note(tonight, f"nobody was told of the night of {night.started[:10]}: {what}")
        follow(session, history, channels, night.id)


def _with_known(
    session: Session, history: History, night: Night, differing: list[NightFinding]
) -> list[NightFinding]:
    """The findings with what is known of the night's failures; a wrong file costs only that."""
    try:
        recognised = known.recognise(night, known.read(session))
    except (LabError, OSError) as error:
        _note(history, night, f"what is known was not looked at: {error}")
        return differing
    if partly := known.partly(recognised):
        _note(history, night, partly)
    return known.findings(recognised, differing)


def _report(history: History, night: Night) -> None:
    try:
        history.set_report(night.id, str(report(night, history)))
    except InterruptedByUser:
        raise
    except Exception as error:
        _note(history, night, f"the report could not be written: {error}")


def _note(history: History, night: Night, text: str) -> None:
    if text not in night.notes:
        history.note(night.id, text)

"""Telling somebody, once, how a night of the fleet came out, over the channels that nights are told by."""

from __future__ import annotations

import socket
import uuid
from collections import Counter
from collections.abc import Sequence

from lab.fleet.ledger import Ledger, LedgerNight
from lab.history.model import counted
from lab.model.domain import Verdict
from lab.nights.telling import deliver
from lab.notify.message import Notice
from lab.notify.sending import Channel
from lab.workflow.session import Session

_WORST = (Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.BLOCKED, Verdict.CONFIRMED, Verdict.NOT_APPLICABLE)
"""The verdict of a whole night is the first of these that a cell of it has."""
_SPACE = uuid.UUID("5e1d7c0e-1f6b-4f43-9a57-0b1f8a2d6c11")
"""Under which a fleet's night has its uuid: the same every time it is told."""


def tell(
    session: Session, ledger: Ledger, night: LedgerNight, channels: Sequence[Channel], report: str
) -> list[str]:
    """Tell of a closed night over each channel that was not told of it; notes of what failed.

    What a channel took is on record before the next one is tried. One that fails is tried again by the next
    gathering, as long as it is among the newest nights.
    """
    failed = []
    for channel in channels:
        if channel.name in night.told:
            continue
        delivery = deliver(session, channel, notice(night, report))
        if not delivery.delivered:
            failed.append(f"{channel.name} was not told of {night.date}: {delivery.said}")
            continue
        night = night.model_copy(update={"told": (*night.told, channel.name)})
        ledger.write(night)
    return failed


def notice(night: LedgerNight, report: str) -> Notice:
    """What a channel is told of a night: the worst verdict, how many cells have which, and every bad word."""
    entries = [each.entry for each in night.cells]
    verdicts = [entry.verdict or Verdict.INCONCLUSIVE for entry in entries]
    counts = Counter(verdict.value for verdict in verdicts)
    bad = [
        f"{entry.cell}{f' on {entry.host}' if entry.host else ''}: {entry.verdict}: {entry.word}"
        for entry in entries
        if entry.verdict not in (Verdict.CONFIRMED, Verdict.NOT_APPLICABLE)
    ]
    fine = counts[Verdict.CONFIRMED.value]
    return Notice(
        night=0,
        uuid=str(uuid.uuid5(_SPACE, f"{socket.gethostname()}/{night.date}/{night.asked}")),
        host=socket.gethostname(),
        started=night.asked,
        claim="",
        verdict=next((verdict for verdict in _WORST if verdict in verdicts), Verdict.BLOCKED).value,
        reason=f"the fleet's night of {night.date}: {fine} of {len(entries)} cells confirmed",
        cell="",
        counts=counted(counts),
        notes=bad,
        report=report,
    )

"""Which nights are kept. Pure.

Every night of the last `keep_days` days; of each earlier week, the newest night of each cell; never more
than `keep_nights` in all, the oldest going first. A night that runs and the newest one always stay.

Ages are measured from the night before the newest, so that a wrong clock tonight makes no night old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.history.model import RUNNING


@dataclass(frozen=True)
class NightAge:
    """What the rule looks at: `started` is ISO 8601, ids rise with time."""

    id: int
    started: str
    cell: str | int | None
    """What tells one host's cell from others."""
    state: str


def dropped(nights: Sequence[NightAge], keep_days: int, keep_nights: int) -> set[int]:
    """The ids of the nights that go."""
    newest_first = sorted(nights, key=lambda night: night.id, reverse=True)
    if len(newest_first) < 2:
        return set()
    oldest_kept = datetime.fromisoformat(newest_first[1].started) - timedelta(days=keep_days)
    weeks: set[tuple[int, int, str | int | None]] = set()
    kept: list[int] = []
    gone: set[int] = set()
    for position, night in enumerate(newest_first):
        if position == 0 or night.state == RUNNING:
            kept.append(night.id)
            continue
        started = datetime.fromisoformat(night.started)
        week = (*started.isocalendar()[:2], night.cell)
        if (started < oldest_kept and week in weeks) or len(kept) >= keep_nights:
            gone.add(night.id)
        else:
            kept.append(night.id)
        weeks.add(week)
    return gone

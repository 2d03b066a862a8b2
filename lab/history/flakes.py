"""How often each rung did not hold, in each cell on each host, over the nights that were. Pure.

A rung is counted where it was tried: passed, failed or inconclusive. Of few tries a rate says little, so it
has its 95 % interval, by Wilson's score (E. B. Wilson, 1927), which holds near 0 and for few tries, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.history.model import CELL, Night

_Z = 1.959964
"""The standard normal distribution's 97.5 % quantile: an interval of 95 %."""
PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"


@dataclass(frozen=True)
class RungRate:
    """One rung: how often it was tried, what came of it, and the share of tries in which it did not pass."""

    rung: str
    tried: int
    failed: int
    inconclusive: int
    rate: float
    low: float
    high: float
    """The interval that the true share is in, with 95 %, were the tries independent."""

    @property
    def flaky(self) -> bool:
        """It passed, and did not, in the same cell."""
        return 0 < self.failed + self.inconclusive < self.tried


@dataclass(frozen=True)
class CellRates:
    """The rungs of one cell on one host, lowest first; `nights` is how many nights they are of."""

    host: str
    cell: Mapping[str, Any]
    nights: int
    rungs: Sequence[RungRate]


def rates(nights: Sequence[Night]) -> list[CellRates]:
    """The rates of every cell and host in `nights`, which are newest first; so are the cells."""
    counts: dict[tuple[Any, ...], dict[str, Counter[str]]] = {}
    cells: dict[tuple[Any, ...], tuple[Night, Mapping[str, Any], set[int]]] = {}
    for night in nights:
        for run in night.runs:
            cell = run.cell or night.cell
            if cell is None:
                continue
            key = (night.host, *(cell[name] for name in CELL))
            cells.setdefault(key, (night, cell, set()))[2].add(night.id)
            for row in run.rungs:
                status = INCONCLUSIVE if row.inconclusive else row.status
                if status in (PASSED, FAILED, INCONCLUSIVE):
                    counts.setdefault(key, {}).setdefault(row.rung, Counter())[status] += 1
    return [
        CellRates(
            night.host, cell, len(ids), [_rate(rung, came) for rung, came in counts.get(key, {}).items()]
        )
        for key, (night, cell, ids) in cells.items()
    ]


def wilson(times: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen `times` times in `of` tries. Of no tries: anything."""
    if not of:
        return 0.0, 1.0
    share, square = times / of, _Z**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    return max(0.0, middle - half) if times else 0.0, min(1.0, middle + half) if times < of else 1.0


def _rate(rung: str, came: Counter[str]) -> RungRate:
    tried, bad = came.total(), came[FAILED] + came[INCONCLUSIVE]
    low, high = wilson(bad, tried)
    return RungRate(
        rung,
        tried,
        came[FAILED],
        came[INCONCLUSIVE],
        round(bad / tried, 4),
        round(low, 4),
        round(high, 4),
    )

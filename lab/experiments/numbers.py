"""A few measured numbers: their middle and spread, and the ratio of two sets of them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BOOTSTRAP_FROM = 8
"""With fewer values on a side a resampled interval is far too narrow: the whole range is told instead."""

_RESAMPLES = 4000
_LEVEL = 0.95


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The members `n`, `values`, `median`, `min` and `max` of a summary; the last three None of no values."""
    median = statistics.median(values) if values else None
    least, most = min(values, default=None), max(values, default=None)
    return {"n": len(values), "values": list(values), "median": median, "min": least, "max": most}


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians. `low` to `high` is how far it may be off, by `how`; None where unknown."""

    value: float
    over: int
    """How many values the numerator's median is of."""
    under: int
    low: float | None
    high: float | None
    how: str

    def as_dict(self) -> dict[str, Any]:
        """The members of lab.compare/1's ratios, rounded."""
        low, high = (None if edge is None else round(edge, 3) for edge in (self.low, self.high))
        figures = {"value": round(self.value, 3), "n_over": self.over, "n_under": self.under}
        return figures | {"low": low, "high": high, "how": self.how}


def ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Ratio | None:
    """median(over) / median(under) with its uncertainty; None when either side has no values.

    From BOOTSTRAP_FROM values a side on: the 95 % percentile interval of resampled medians, the same
    for the same `seed`. Below: the least and the greatest ratio of any pair. Of one pair nothing is
    known. Raises ValueError for a value that is not positive.
    """
    if not over or not under:
        return None
    if min(*over, *under) <= 0:
        raise ValueError("a ratio of durations needs positive ones")
    value = statistics.median(over) / statistics.median(under)
    fewest = min(len(over), len(under))
    if max(len(over), len(under)) == 1:
        return Ratio(value, 1, 1, None, None, "one pair: its spread is not known")
    if fewest < BOOTSTRAP_FROM:
        low, high = min(over) / max(under), max(over) / min(under)
        return Ratio(value, len(over), len(under), low, high, "least and greatest ratio of any pair")
    low, high = _bootstrap(over, under, random.Random(seed))  # noqa: S311 - resampling, no secret
    return Ratio(value, len(over), len(under), low, high, f"{_LEVEL:.0%} bootstrap interval of the medians")


def _bootstrap(over: Sequence[float], under: Sequence[float], chance: random.Random) -> tuple[float, float]:
    ratios = sorted(
        statistics.median(chance.choices(over, k=len(over)))
        / statistics.median(chance.choices(under, k=len(under)))
        for _ in range(_RESAMPLES)
    )
    edge = int(_RESAMPLES * (1 - _LEVEL) / 2)
    return ratios[edge], ratios[-1 - edge]

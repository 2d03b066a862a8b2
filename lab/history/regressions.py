"""What became worse, or better, against the nights before in the same cell. Pure.

A verdict counts as lost while one of the nights looked back at still confirmed the claim: so a loss is
named every night until it is mended, or has become what is usual.

A boot counts as slower when every one of the newest boots, at least two, took longer than the median of
the earlier nights by more than DEVIATIONS robust standard deviations and by more than SHARE of it; with
fewer than NIGHTS earlier nights nothing is said. The robust deviation is 1.4826 times the median absolute
deviation, which equals the standard deviation where values are normally distributed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lab.history.model import SLOWER_IS_WORSE, Finding, Night

RECENT = 2
NIGHTS = 5
DEVIATIONS = 4.0
SHARE = 0.25
_TO_DEVIATION = 1.4826

_CONFIRMED, _REFUTED, _NOT_APPLICABLE = "confirmed", "refuted", "not applicable"


@dataclass(frozen=True)
class Slower:
    """A figure that rose: all in its own unit, `nights` and `boots` what it rests on."""

    usual: float
    deviation: float
    limit: float
    recent: Sequence[float]
    nights: int


def findings(tonight: Night, before: Sequence[Night]) -> list[Finding]:
    """What to tell of `tonight`; `before` are the last nights of its cell, newest first."""
    turns = [_turn(found.claim, tonight, before) for found in tonight.claims]
    slow = [_slow(figure, tonight, before) for figure in SLOWER_IS_WORSE]
    return [finding for finding in (*turns, *slow) if finding is not None]


def slower(tonight: Sequence[float], before: Sequence[Sequence[float]]) -> Slower | None:
    """Whether a figure rose. `before` holds the values of each earlier night, newest night first.

    One value is never enough: a night with a single boot is judged together with the night before it.
    """
    recent = list(tonight)
    earlier = [list(values) for values in before if values]
    while recent and len(recent) < RECENT and earlier:
        recent += earlier.pop(0)
    if len(recent) < RECENT or len(earlier) < NIGHTS:
        return None
    medians = [statistics.median(values) for values in earlier]
    usual = statistics.median(medians)
    deviation = _TO_DEVIATION * statistics.median(abs(value - usual) for value in medians)
    limit = usual + max(DEVIATIONS * deviation, SHARE * usual)
    return Slower(usual, deviation, limit, recent, len(medians)) if min(recent) > limit else None


def _slow(figure: str, tonight: Night, before: Sequence[Night]) -> Finding | None:
    found = slower(tonight.samples(figure), [night.samples(figure) for night in before])
    if found is None:
        return None
    took = ", ".join(f"{value:.1f} s" for value in found.recent)
    return Finding(
        f"slower: {figure}",
        f"{figure} became slower: the last {len(found.recent)} took {took}, where {found.nights} earlier "
        f"nights of this cell have a median of {found.usual:.1f} s (robust deviation "
        f"{found.deviation:.1f} s) and anything above {found.limit:.1f} s counts as slower",
    )


def _turn(claim: str, tonight: Night, before: Sequence[Night]) -> Finding | None:
    now = tonight.verdict_on(claim)
    earlier = [night for night in before if night.verdict_on(claim)]
    if not earlier or now == _NOT_APPLICABLE:
        return None
    verdicts = [night.verdict_on(claim) for night in earlier]
    good = verdicts.count(_CONFIRMED)
    of = f"of the {len(earlier)} nights of this cell before it"
    if now != _CONFIRMED and good:
        last = next(night for night in earlier if night.verdict_on(claim) == _CONFIRMED)
        return Finding(
            f"verdict: {claim}",
            f"{claim} is {now} tonight and was confirmed on {good} {of}, last on {last.started[:10]}: "
            f"{_reason(claim, tonight)}",
        )
    if now == _CONFIRMED and verdicts[0] != _CONFIRMED:
        bad = verdicts.count(_REFUTED)
        was = f"{verdicts[0]} the night before" + (f", refuted on {bad} {of}" if bad else "")
        return Finding(f"verdict: {claim}", f"{claim} is confirmed tonight and was {was}", worse=False)
    return None


def _reason(claim: str, tonight: Night) -> str:
    return next(found.reason for found in tonight.claims if found.claim == claim)

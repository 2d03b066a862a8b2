"""What became worse, or better, against the nights before. Pure.

A verdict is compared with those of the same host and engine: an update that costs a claim is what a night
is for, so the columns of the cell that changed are named, and do not make it another matter. It counts as
lost while one of the nights looked back at still confirmed the claim: so a loss is named every night until
it is mended, or has become what is usual.

A boot is compared within one cell: other versions take other times. It counts as slower when every one of
the newest boots, at least two, took longer than the median of the earlier nights by more than DEVIATIONS
robust standard deviations and by more than SHARE of it; with fewer than NIGHTS earlier nights nothing is
said. The robust deviation is 1.4826 times the median absolute deviation, which equals the standard
deviation where values are normally distributed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.history.model import SLOWER_IS_WORSE, Night, NightFinding
from lab.model.domain import engine_title

RECENT = 2
NIGHTS = 5
DEVIATIONS = 4.0
SHARE = 0.25
_TO_DEVIATION = 1.4826

VERDICT = "verdict: "
"""What the key of a finding about a verdict begins with."""

_CONFIRMED, _REFUTED, _NOT_APPLICABLE = "confirmed", "refuted", "not applicable"

_NAMED = {
    "os": "",
    "kernel": "kernel ",
    "engine_version": "",
    "acceleration": "acceleration ",
    "nesting": "nesting ",
    "paravirt": "paravirtualization ",
    "image": "VM image ",
    "emulator": "emulator ",
    "emulator_image": "emulator image ",
}
"""Columns of a cell that may change on one host and engine, with what stands before their values.

`emulated` and `android` follow from these."""
_OF_THE_ENGINE = ("acceleration", "nesting")
"""What a cell cannot know when it does not know the engine's version."""


@dataclass(frozen=True)
class Slower:
    """A figure that rose: all in its own unit, `nights` and `boots` what it rests on."""

    usual: float
    deviation: float
    limit: float
    recent: Sequence[float]
    nights: int


def findings(tonight: Night, alike: Sequence[Night], same: Sequence[Night]) -> list[NightFinding]:
    """What to tell of `tonight`.

    `alike` are the last nights of its host and engine (History.alike), `same` those of its cell
    (History.before); both newest first.
    """
    turns = [_turn(claimed.claim, tonight, alike) for claimed in tonight.claims]
    slow = [_slow(figure, tonight, same) for figure in SLOWER_IS_WORSE]
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


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The columns that differ between two cells of one host and engine, as `VirtualBox 7.1.4 → 7.2.0`.

    A value that is not known in one of them is no difference.
    """
    unknown = _OF_THE_ENGINE if not (then["engine_version"] and now["engine_version"]) else ()
    lines = []
    for name, label in _NAMED.items():
        old, new = str(then[name] or ""), str(now[name] or "")
        follows = name == "emulator_image" and then["emulator"] != now["emulator"]
        if old and new and old != new and name not in unknown and not follows:
            engine = str(now["engine"])
            before = f"{engine_title(engine)} " if name == "engine_version" else label
            lines.append(f"{before}{_short(old)} → {_short(new)}")
    return lines


def _slow(figure: str, tonight: Night, before: Sequence[Night]) -> NightFinding | None:
    medians = slower(tonight.samples(figure), [night.samples(figure) for night in before])
    if medians is None:
        return None
    took = ", ".join(f"{value:.1f} s" for value in medians.recent)
    return NightFinding(
        f"slower: {figure}",
        f"{figure} became slower: the last {len(medians.recent)} took {took}, where {medians.nights} earlier "
        f"nights of this cell have a median of {medians.usual:.1f} s (robust deviation "
        f"{medians.deviation:.1f} s) and anything above {medians.limit:.1f} s counts as slower",
    )


def _turn(claim: str, tonight: Night, before: Sequence[Night]) -> NightFinding | None:
    now = tonight.verdict_on(claim)
    earlier = [night for night in before if night.verdict_on(claim)]
    if not earlier or now == _NOT_APPLICABLE:
        return None
    verdicts = [night.verdict_on(claim) for night in earlier]
    good = verdicts.count(_CONFIRMED)
    of = f"of the {len(earlier)} nights of this host and engine before it"
    key = f"{VERDICT}{claim}{_where(tonight, *earlier)}"
    if now != _CONFIRMED and good:
        last = next(night for night in earlier if night.verdict_on(claim) == _CONFIRMED)
        return NightFinding(
            key,
            f"{claim} is {now} tonight and was confirmed on {good} {of}, last on {last.started[:10]}"
            f"{_since(last, tonight)}: {_reason(claim, tonight)}",
        )
    if now == _CONFIRMED and verdicts[0] != _CONFIRMED:
        bad = verdicts.count(_REFUTED)
        was = f"{verdicts[0]} the night before" + (f", refuted on {bad} {of}" if bad else "")
        return NightFinding(
            key, f"{claim} is confirmed tonight and was {was}{_since(earlier[0], tonight)}", worse=False
        )
    return None


def _since(then: Night, tonight: Night) -> str:
    """What changed in the cell between two nights, to follow a sentence about them."""
    if tonight.cell is None:
        return "; tonight's cell did not come to be known"
    if then.cell is None:
        return ""
    changed = changes(then.cell, tonight.cell)
    return f"; changed since then: {', '.join(changed)}" if changed else ", in the same cell"


def _where(*nights: Night) -> str:
    """Host and engine, of the first night that knows its cell."""
    cell = next((night.cell for night in nights if night.cell), None)
    return f" on {cell['system']}, {cell['cpu']}, {cell['engine']}" if cell else ""


def _short(value: str) -> str:
    """A content id is known by its beginning."""
    return value[:19] if value.startswith("sha256:") else value


def _reason(claim: str, tonight: Night) -> str:
    return next(claimed.reason for claimed in tonight.claims if claimed.claim == claim)

"""Whether a table of facts contradicts itself: what `lab.theory.knowledge.predict` relies on."""

from __future__ import annotations

from itertools import combinations

from lab.core.versions import numbers
from lab.theory.knowledge import Fact
from lab.theory.match import RANGES, SETS, Match, Range
from lab.theory.situation import FLAGS


def conflicts(facts: tuple[Fact, ...]) -> list[tuple[str, str]]:
    """Pairs of facts that can hold together and say different things, with nothing to choose by."""
    return [
        (first.id, second.id)
        for first, second in combinations(facts, 2)
        if (first.nesting, first.android) != (second.nesting, second.android)
        and overlap(first.match, second.match)
        and first.match.implies(second.match) == second.match.implies(first.match)
        and not _settled(first, second, facts)
    ]


def _settled(first: Fact, second: Fact, facts: tuple[Fact, ...]) -> bool:
    """Whether a third fact, more specific than both, holds wherever both do."""
    both = meet(first.match, second.match)
    return any(
        both.implies(fact.match) and fact.match.implies(first.match) and fact.match.implies(second.match)
        for fact in facts
        if fact not in (first, second)
    )


def overlap(first: Match, second: Match) -> bool:
    """Whether a situation is possible in which both hold."""
    return (
        first.engine == second.engine
        and all(_common(getattr(first, name), getattr(second, name)) is not None for name in SETS)
        and all(meet_ranges(getattr(first, name), getattr(second, name)) is not None for name in RANGES)
        and all({getattr(first, name), getattr(second, name)} != {True, False} for name in FLAGS)
    )


def meet(first: Match, second: Match) -> Match:
    """The conditions of both together. Raises ValueError when they do not overlap."""
    if not overlap(first, second):
        raise ValueError("the two never hold together")
    flags = {
        name: getattr(second, name) if getattr(first, name) is None else getattr(first, name)
        for name in FLAGS
    }
    sets = {name: _common(getattr(first, name), getattr(second, name)) for name in SETS}
    ranges = {name: meet_ranges(getattr(first, name), getattr(second, name)) for name in RANGES}
    return Match.model_validate({"engine": first.engine, **flags, **sets, **ranges})


def meet_ranges(first: Range, second: Range) -> Range | None:
    """The versions in both; None when there are none."""
    since = max((first.since, second.since), key=numbers)
    below = min(filter(None, (first.below, second.below)), key=numbers, default="")
    if since and below and numbers(since) >= numbers(below):
        return None
    return Range.model_validate({"from": since, "below": below})


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """What both allow, empty for anything; None when they allow nothing together."""
    if not first or not second:
        return first or second
    return tuple(name for name in first if name in second) or None

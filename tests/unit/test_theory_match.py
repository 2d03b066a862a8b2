"""Conditions: ranges, implication and overlap, each against its meaning over many situations."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.core.versions import numbers
from lab.theory.match import Match, Range, Where
from lab.theory.situation import FLAGS, SYSTEMS, Situation
from tests.unit.conflicts import meet, meet_ranges, overlap

VERSIONS = ["6.1", "6.1.50", "7", "7.0.0", "7.1.10", "7.2", "7.2.22_Debianr1", "11"]
BOUNDS = st.sampled_from(["", "6.1", "7.0", "7.1.10", "7.2", "11"])


def range_of(since: str = "", below: str = "") -> Range:
    return Range.model_validate({"from": since, "below": below})


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    since, below = draw(BOUNDS), draw(BOUNDS)
    if since and below and numbers(since) >= numbers(below):
        since, below = "", below
    return range_of(since, below)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    few = {name: draw(st.sampled_from([None, None, None, True, False])) for name in FLAGS}
    return Match.model_validate(
        {
            "engine": draw(st.sampled_from(["qemu", "virtualbox"])),
            "system": draw(st.sampled_from([(), ("macos",), ("linux", "macos"), ("linux",)])),
            "cpu": draw(st.sampled_from([(), ("intel",), ("intel", "amd"), ("apple",)])),
            "engine_version": draw(ranges()),
            "os_version": draw(ranges()),
            **few,
        }
    )


@st.composite
def situations(draw: st.DrawFn, known: bool = False) -> Situation:
    unknown: list[Any] = [] if known else [None]
    text: list[str] = [] if known else [""]
    return Situation(
        draw(st.sampled_from(SYSTEMS)),
        draw(st.sampled_from(["intel", "amd", "apple", *unknown])),
        draw(st.sampled_from([*VERSIONS, *text])),
        draw(st.sampled_from([1, 3, 8, *unknown])),
        engine=draw(st.sampled_from(["qemu", "virtualbox"])),
        engine_version=draw(st.sampled_from([*VERSIONS, *text])),
        **{name: draw(st.sampled_from([True, False, *unknown])) for name in FLAGS},
    )


@given(ranges(), ranges(), st.sampled_from(VERSIONS))
def test_ranges_mean_what_they_say(one: Range, other: Range, version: str) -> None:
    both = bool(one.holds(version) and other.holds(version))
    common = meet_ranges(one, other)
    assert both == bool(common and common.holds(version))
    if one.within(other) and one.holds(version):
        assert other.holds(version)
    assert one.within(one) and one.within(range_of())
    assert common is None or (common.within(one) and common.within(other))


def test_a_range_asks_only_for_what_it_bounds() -> None:
    assert range_of().holds("") is True
    assert range_of("7").holds("") is None
    assert range_of("7.0").within(range_of("6.1")) and not range_of("6.1").within(range_of("7.0"))
    assert not range_of().within(range_of("7")) and meet_ranges(range_of("6.1", "7"), range_of("7")) is None
    for since, below in (("7.0", "7"), ("7.2", "7.1"), ("7.x", ""), ("", "7.")):
        with pytest.raises(ValidationError):
            range_of(since, below)


@given(matches(), matches(), situations())
def test_implication_is_about_every_situation(one: Match, other: Match, situation: Situation) -> None:
    if one.implies(other) and one.holds(situation):
        assert other.holds(situation)
    if one.holds(situation) and other.holds(situation):
        assert overlap(one, other)
        assert meet(one, other).holds(situation)
    if overlap(one, other):
        both = meet(one, other)
        assert both.implies(one) and both.implies(other)
        assert both.holds(situation) is not True or (one.holds(situation) and other.holds(situation))
    else:
        with pytest.raises(ValueError, match="never"):
            meet(one, other)


@given(matches(), matches(), matches())
def test_implication_is_an_order(one: Match, two: Match, three: Match) -> None:
    assert one.implies(one)
    if one.implies(two) and two.implies(three):
        assert one.implies(three)


@given(matches(), situations(known=True), st.sets(st.sampled_from([*FLAGS, "cpu"])))
def test_learning_more_changes_only_what_was_open(match: Match, full: Situation, gone: set[str]) -> None:
    less = dataclasses.replace(full, **dict.fromkeys(gone))
    assert match.holds(full) in (True, False)
    assert match.holds(less) in (match.holds(full), None)


def test_a_condition_in_words() -> None:
    where = Where.model_validate({"system": ["macos"], "cpu": ["apple"], "generation": {"from": "3"}})
    assert where.describe() == "macOS, Apple silicon (generation 3 and newer)"
    assert Where().describe() == "any host"
    match = Match.model_validate(
        {"engine": "virtualbox", "engine_version": {"from": "7.0", "below": "7.2"}, "hyperv": False}
    )
    assert match.describe() == "VirtualBox 7.0 to before 7.2: with Hyper-V off"

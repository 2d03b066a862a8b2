"""What became worse, or better, against the nights before, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.history.model import (
    CELL,
    Claimed,
    Night,
)
from lab.history.regressions import _NAMED, NIGHTS, SHARE, changes, findings, slower
from lab.history.store import History
from tests.unit.test_history import AT, COLUMNS, VERDICTS, begin, night


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.db") as opened:
        yield opened


def test_a_lost_confirmation_is_named_until_it_is_what_is_usual(history: History) -> None:
    for _ in range(3):
        night(history)
    for expected in (True, True, True, False):
        result = night(history, "refuted")
        said = findings(result, history.alike(result, 3), [])
        assert bool(said) is expected
        if expected:
            (finding,) = said
            assert finding.worse
            assert "nesting is refuted tonight and was confirmed on" in finding.text
            assert finding.key == "verdict: nesting on x, x, x"
            assert ", in the same cell: because" in finding.text


def test_a_turn_to_the_better_is_no_regression(history: History) -> None:
    night(history, "refuted")
    result = night(history)
    (finding,) = findings(result, history.alike(result, 5), [])
    assert not finding.worse
    assert "was refuted the night before" in finding.text


VIRTUALBOX = COLUMNS | {
    "engine": "virtualbox",
    "engine_version": "7.1.4",
    "kernel": "24.1.0",
    "acceleration": "native",
    "nesting": "hardware",
    "emulator_image": "sha256:" + 64 * "a",
}


def test_an_update_that_costs_a_claim_is_named_with_what_was_updated(history: History) -> None:
    night(history, cell=VIRTUALBOX)
    newer = VIRTUALBOX | {"engine_version": "7.2.0", "kernel": "24.2.0"}
    result = night(history, "refuted", cell=newer)
    assert history.before(result, 14) == []  # another cell
    (finding,) = findings(result, history.alike(result, 14), [])
    assert finding.worse
    assert "nesting is refuted tonight and was confirmed on 1 of the 1 nights" in finding.text
    assert "changed since then: kernel 24.1.0 → 24.2.0, VirtualBox 7.1.4 → 7.2.0: because" in finding.text
    again = night(history, "refuted", cell=newer | {"kernel": "24.3.0"})
    (once_more,) = findings(again, history.alike(again, 14), [])
    assert once_more.key == finding.key  # one issue, whichever update came next
    mended = night(history, cell=newer | {"engine_version": "7.2.2"})
    (better,) = findings(mended, history.alike(mended, 14), [])
    assert not better.worse
    assert "was refuted the night before" in better.text
    assert "kernel 24.3.0 → 24.2.0, VirtualBox 7.2.0 → 7.2.2" in better.text


def test_another_host_or_engine_is_another_matter(history: History) -> None:
    night(history, cell=VIRTUALBOX)
    for other in ({"engine": "qemu"}, {"cpu": "another"}, {"system": "linux"}):
        result = night(history, "refuted", cell=VIRTUALBOX | other)
        assert findings(result, history.alike(result, 14), []) == []


def test_a_night_that_broke_before_any_cell_is_compared_with_the_last_engines(history: History) -> None:
    night(history, cell=COLUMNS)
    night(history, cell=VIRTUALBOX)
    for expected in (1, 2):
        broken = night(history, "inconclusive", cell=None)
        (finding,) = findings(broken, history.alike(broken, 14), [])
        assert finding.key == "verdict: nesting on x, x, virtualbox"
        assert f"was confirmed on 1 of the {expected} nights" in finding.text
        assert "tonight's cell did not come to be known" in finding.text
    mended = night(history, cell=VIRTUALBOX)
    (better,) = findings(mended, history.alike(mended, 14), [])
    assert not better.worse
    assert "inconclusive the night before" in better.text


def test_only_so_many_nights_are_looked_back_at_and_none_without_a_verdict(history: History) -> None:
    key = begin(history)
    history.close_dead([history.night(key)], "it was killed", "boot")
    nights = [night(history, cell=COLUMNS | {"kernel": str(number)}) for number in range(4)]
    begin(history)  # one that runs
    result = night(history)
    assert [one.id for one in history.alike(result, 3)] == [one.id for one in reversed(nights[1:])]
    assert len(history.alike(result, 14)) == 4


def test_what_a_cell_does_not_know_did_not_change() -> None:
    lost = VIRTUALBOX | {"engine_version": "", "acceleration": "", "nesting": "none", "emulator_image": ""}
    assert changes(VIRTUALBOX, lost) == []
    other = VIRTUALBOX | {"emulator": "canary", "emulator_image": "sha256:" + 64 * "b", "os": "macOS 15"}
    assert changes(VIRTUALBOX, other) == ["x → macOS 15", "emulator x → canary"]
    moved = VIRTUALBOX | {"emulator_image": "sha256:" + 64 * "b"}
    assert changes(VIRTUALBOX, moved) == ["emulator image sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb"]
    assert set(_NAMED) | {"system", "cpu", "pc", "engine", "emulated", "android"} == set(CELL)


@given(verdict=st.sampled_from(VERDICTS), earlier=st.lists(st.sampled_from(VERDICTS), max_size=8))
def test_nothing_is_lost_that_was_never_had(verdict: str, earlier: list[str]) -> None:
    def made(number: int, word: str) -> Night:
        claims = [Claimed("nesting", word, "because", {word: 1})]
        return Night(number, str(number), "ended", AT, 3, "e", "0", verdict=word, claims=claims)

    before = [made(number, word) for number, word in enumerate(earlier)]
    worse = [finding for finding in findings(made(99, verdict), before, []) if finding.worse]
    assert bool(worse) is (verdict != "confirmed" and "confirmed" in earlier)


def test_slower_boots_are_named_with_their_figures(history: History) -> None:
    for boot in (6.0, 6.2, 5.9, 6.1, 6.0, 6.3):
        night(history, "confirmed", boot)
    once = night(history, "confirmed", 9.0)
    assert findings(once, [], history.before(once, 14)) == []  # one boot is a fluke
    twice = night(history, "confirmed", 9.5)
    (finding,) = findings(twice, [], history.before(twice, 14))
    assert finding.worse
    assert "9.5 s, 9.0 s" in finding.text
    assert "median of 6.0 s" in finding.text or "median of 6.1 s" in finding.text


seconds = st.floats(0.1, 1e4, allow_nan=False)


@given(tonight=st.lists(seconds, max_size=1), before=st.lists(st.lists(seconds, max_size=2), max_size=NIGHTS))
def test_too_little_is_never_judged(tonight: list[float], before: list[list[float]]) -> None:
    assert slower(tonight, before) is None


@settings(max_examples=200)
@given(
    tonight=st.lists(seconds, min_size=1, max_size=4),
    before=st.lists(st.lists(seconds, min_size=1, max_size=3), min_size=1, max_size=14),
)
def test_what_counts_as_slower(tonight: list[float], before: list[list[float]]) -> None:
    result = slower(tonight, before)
    if result is None:
        return
    assert len(result.recent) >= 2
    assert result.nights >= NIGHTS
    assert min(result.recent) > result.limit >= result.usual * (1 + SHARE)
    scaled = slower([2 * value for value in tonight], [[2 * value for value in values] for values in before])
    assert scaled is not None  # the unit does not matter
    if len(tonight) >= 2:  # a single usual boot clears it
        assert slower([*tonight, result.usual], before) is None


@given(before=st.lists(st.lists(seconds, min_size=1, max_size=3), min_size=NIGHTS, max_size=14))
def test_the_usual_is_never_slower(before: list[list[float]]) -> None:
    everything = [value for values in before for value in values]
    usual = sorted(everything)[len(everything) // 2]
    assert slower([min(everything), usual], before) is None

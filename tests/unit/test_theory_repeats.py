"""Several runs as one verdict, over any mixture of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.model.domain import Verdict
from lab.theory.repeats import combine

RUNS = st.lists(st.sampled_from(Verdict), max_size=12)


@given(RUNS)
def test_only_runs_that_all_agree_give_their_verdict(runs: list[Verdict]) -> None:
    found = combine(runs)
    if len(set(runs)) == 1:
        assert found.verdict is runs[0]
    else:
        assert found.verdict is Verdict.INCONCLUSIVE
    assert found.counts == Counter(runs) and found.runs == len(runs)
    for verdict in set(runs):
        assert f"{runs.count(verdict)} {verdict}" in found.reason


@given(RUNS, st.randoms())
def test_the_order_of_the_runs_does_not_matter(runs: list[Verdict], random: object) -> None:
    shuffled = list(runs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert combine(shuffled) == combine(runs)
    assert list(combine(shuffled).counts) == list(combine(runs).counts)


@given(RUNS, st.sampled_from([verdict for verdict in Verdict if verdict is not Verdict.CONFIRMED]))
def test_one_run_that_did_not_confirm_takes_confirmation_away(runs: list[Verdict], other: Verdict) -> None:
    assert combine([*runs, other]).verdict is not Verdict.CONFIRMED


@given(RUNS, st.sampled_from([verdict for verdict in Verdict if verdict is not Verdict.REFUTED]))
def test_one_run_that_did_not_refute_takes_refutation_away(runs: list[Verdict], other: Verdict) -> None:
    assert combine([*runs, other]).verdict is not Verdict.REFUTED


@pytest.mark.parametrize(
    ("runs", "verdict", "reason"),
    [
        ([], "inconclusive", "nothing was run"),
        (["confirmed"] * 3, "confirmed", "3 confirmed of 3"),
        (
            ["confirmed", "refuted", "confirmed"],
            "inconclusive",
            "3 runs do not agree: 2 confirmed, 1 refuted",
        ),
        (["inconclusive", "confirmed"], "inconclusive", "2 runs do not agree: 1 confirmed, 1 inconclusive"),
        (["blocked", "blocked"], "blocked", "2 blocked of 2"),
        (["refuted", "blocked"], "inconclusive", "2 runs do not agree: 1 refuted, 1 blocked"),
    ],
)
def test_in_words(runs: list[str], verdict: str, reason: str) -> None:
    found = combine(map(Verdict, runs))
    assert (found.verdict.value, found.reason) == (verdict, reason)

"""Predictions beside observations."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.model.domain import Claim, Verdict
from lab.theory.documents import predictions
from lab.theory.knowledge import Outlook, predict, table
from lab.theory.observed import Agreement, PastVerdict, cell_of, compare, matrix
from lab.theory.situation import parse_host
from tests.unit.test_theory_situation import CELL

WHEN = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("predicted", "verdict", "expected"),
    [
        ("confirmed", "confirmed", "agrees"),
        ("confirmed", "refuted", "contradicts"),
        ("confirmed", "blocked", "not tested"),
        ("confirmed", "inconclusive", "not tested"),
        ("refuted", "refuted", "agrees"),
        ("refuted", "confirmed", "contradicts"),
        ("refuted", "blocked", "not tested"),
        ("blocked", "blocked", "agrees"),
        ("blocked", "confirmed", "contradicts"),
        ("blocked", "refuted", "contradicts"),
        ("unknown", "confirmed", "answers"),
        ("unknown", "refuted", "answers"),
        ("unknown", "blocked", "not tested"),
        ("not applicable", "not applicable", "not tested"),
        ("refuted", "not applicable", "not tested"),
    ],
)
def test_comparison(predicted: str, verdict: str, expected: str) -> None:
    assert compare(Outlook(predicted), Verdict(verdict)).value == expected


@given(st.sampled_from(Outlook), st.sampled_from(Verdict))
def test_only_what_was_seen_contradicts_or_answers(predicted: Outlook, verdict: Verdict) -> None:
    found = compare(predicted, verdict)
    if found in (Agreement.CONTRADICTS, Agreement.ANSWERS):
        assert verdict in (Verdict.CONFIRMED, Verdict.REFUTED)
        assert predicted.value != verdict.value
    if found is Agreement.AGREES:
        assert predicted.value == verdict.value


def seen(claim: Claim, verdict: Verdict, **cell: object) -> PastVerdict:
    return PastVerdict(dataclasses.replace(CELL, **cell), claim, verdict, WHEN)  # type: ignore[arg-type]


def test_an_observation_stands_at_the_fact_that_decides_its_cell() -> None:
    rows = matrix([seen(Claim.NESTING, Verdict.CONFIRMED), seen(Claim.ANDROID, Verdict.BLOCKED)])
    assert [row.fact for row in rows] == list(table().fact)
    (found,) = [row for row in rows if row.seen]
    assert found.fact and found.fact.id == "qemu-emulation"
    assert [item.comparison.value for item in found.seen] == ["agrees", "agrees"]
    assert [item.predicted.value for item in found.seen] == ["confirmed", "blocked"]


def test_a_surprise_is_seen_as_one() -> None:
    rows = matrix([seen(Claim.NESTING, Verdict.REFUTED)])
    (item,) = [item for row in rows for item in row.seen]
    assert item.comparison is Agreement.CONTRADICTS


def test_a_cell_that_no_fact_decides_is_kept_apart() -> None:
    odd = seen(Claim.NESTING, Verdict.CONFIRMED, engine="virtualbox", acceleration="hwvirt")
    *rest, last = matrix([odd])
    assert last.fact is None and [item.comparison.value for item in last.seen] == ["answers"]
    assert not any(row.seen for row in rest)
    # Of this host more is known than the cell says.
    here = dataclasses.replace(parse_host("linux-amd:12,vm,no-extensions"))
    (row,) = [row for row in matrix([odd], here) if row.seen]
    assert row.fact and row.fact.id == "virtualbox-linux-no-extensions"
    assert row.seen[0].comparison is Agreement.CONTRADICTS


def test_the_predictions_of_a_report() -> None:
    rows = predictions(predict(parse_host("macos-intel:13").on("virtualbox", "7.1")))
    assert [(row.claim, row.predicted) for row in rows] == [
        ("nesting", "refuted"),
        ("android", "refuted"),
        ("theory", "refuted"),
    ]
    assert {row.grade for row in rows} == {"source code"} and "rgl/proxmox-ve#23" in rows[0].source
    nothing = predictions(predict(parse_host("linux-arm").on("virtualbox", "7.2")))
    assert [(row.predicted, row.source, row.grade) for row in nothing] == [
        ("unknown", "", ""),
        ("unknown", "", ""),
        ("not applicable", "", ""),
    ]


def test_a_cell_is_read_back_from_its_document() -> None:
    assert cell_of(json.loads(json.dumps(dataclasses.asdict(CELL)))) == CELL

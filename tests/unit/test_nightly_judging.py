"""The verdict of a night from its runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.history.model import Claimed, ClimbRecord
from lab.model.domain import Claim, Verdict
from lab.nights.judging import judge
from tests.unit.bed import Bed
from tests.unit.test_history import COLUMNS

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


WORDS = [Verdict.CONFIRMED, Verdict.REFUTED, Verdict.BLOCKED, Verdict.INCONCLUSIVE]


def _climb(number: int, verdict: Verdict, broken: bool, kind: str = "validate") -> ClimbRecord:
    if broken:
        return ClimbRecord(number, kind, AT, 1.0, "inconclusive", "", "it broke", error="it broke")
    claims = [Claimed(claim.value, verdict.value, "because") for claim in Claim]
    return ClimbRecord(
        number, kind, AT, 1.0, verdict.value, "nesting", "because", cell=COLUMNS, claims=claims
    )


@given(
    looks=st.lists(st.tuples(st.sampled_from(WORDS), st.booleans()), max_size=6),
    missing=st.integers(0, 3),
    claim=st.sampled_from(["", "nesting", "android"]),
)
def test_green_means_every_planned_run_was(
    looks: list[tuple[Verdict, bool]], missing: int, claim: str
) -> None:
    runs = [_climb(number, *look) for number, look in enumerate(looks, 1)]
    result = judge(runs, missing, "out of time", claim)
    good = bool(runs) and not missing and all(look == (Verdict.CONFIRMED, False) for look in looks)
    assert (result.verdict is Verdict.CONFIRMED) is good
    refuted = bool(runs) and not missing and all(look == (Verdict.REFUTED, False) for look in looks)
    assert (result.verdict is Verdict.REFUTED) is refuted
    assert result.reason
    for item in result.claims:
        assert sum(item.counts.values()) == len(runs) + missing


def test_runs_of_two_cells_confirm_nothing() -> None:
    runs = [_climb(1, Verdict.CONFIRMED, False), _climb(2, Verdict.CONFIRMED, False)]
    runs[1] = replace(runs[1], cell=COLUMNS | {"engine_version": "other"})
    result = judge(runs, 0, "")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "engine_version" in result.reason


def test_a_column_one_run_did_not_get_to_know_is_no_other_cell() -> None:
    runs = [_climb(1, Verdict.CONFIRMED, False), _climb(2, Verdict.BLOCKED, False)]
    runs[1] = replace(runs[1], cell=COLUMNS | {"acceleration": ""})
    assert "do not agree" in judge(runs, 0, "").reason

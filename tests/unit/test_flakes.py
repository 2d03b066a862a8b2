"""How often a rung did not hold: counted within one cell and host, with its interval."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.core.errors import UsageError
from lab.core.tell import Terminal
from lab.history.flakes import rates, wilson
from lab.history.model import CELL, ClimbRecord, Night, RungRecord
from lab.nights import night as nights
from lab.tasks.nightly.flakes import flakes
from lab.tasks.nightly.run import ROADS
from tests.unit.bed import Bed, checked
from tests.unit.fakes import TCG
from tests.unit.nights import before_looks, blocked, session

AT = "2026-12-01T03:04:05.678+00:00"
HERE: dict[str, Any] = dict.fromkeys(CELL, "x") | {"emulated": 1, "android": 0, "nesting": "emulated"}


def a_night(number: int, *statuses: str, cell: dict[str, Any] | None = HERE, host: str = "h") -> Night:
    """A night whose runs' only rung came to these."""
    runs = [
        ClimbRecord(
            at,
            "validate",
            AT,
            1.0,
            "confirmed",
            "nesting",
            "so",
            cell=cell,
            rungs=[RungRecord("vm.boot", status.removesuffix("?"), status.endswith("?"), 1.0, "o")],
        )
        for at, status in enumerate(statuses, 1)
    ]
    return Night(number, f"u{number}", "ended", AT, len(runs), "e", "1", host=host, cell=HERE, runs=runs)


def test_what_was_tried_is_counted() -> None:
    (cell,) = rates([a_night(2, "passed", "failed?"), a_night(1, "failed", "passed", "blocked", "skipped")])
    (rung,) = cell.rungs
    assert (cell.nights, cell.host, cell.cell) == (2, "h", HERE)
    assert (rung.rung, rung.tried, rung.failed, rung.inconclusive, rung.rate) == ("vm.boot", 4, 1, 1, 0.5)
    assert rung.flaky


def test_what_never_or_always_passed_is_not_flaky() -> None:
    assert [rates([a_night(1, word, word)])[0].rungs[0].flaky for word in ("passed", "failed")] == [False] * 2


def test_cells_and_hosts_are_counted_apart_and_a_run_without_one_is_of_its_nights() -> None:
    newer = HERE | {"engine_version": "2"}
    found = rates(
        [
            a_night(4, "passed", cell=newer),
            a_night(3, "failed", host="other"),
            a_night(2, "failed", cell=None),
            a_night(1, "passed"),
        ]
    )
    assert [(each.host, each.cell["engine_version"], each.nights) for each in found] == [
        ("h", "2", 1),
        ("other", "x", 1),
        ("h", "x", 2),
    ]
    assert found[2].rungs[0].tried == 2
    assert rates([replace(a_night(1, "failed", cell=None), cell=None)]) == []


@pytest.mark.parametrize(
    ("times", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (0, 0, 0, 1),
    ],
)
def test_the_interval_is_wilsons(times: int, of: int, low: float, high: float) -> None:
    """Values of the literature."""
    assert wilson(times, of) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share_and_narrows(times: int, of: int) -> None:
    times = min(times, of)
    low, high = wilson(times, of)
    assert 0 <= low <= times / of <= high <= 1
    wider = wilson(times * 4, of * 4)
    assert wider[1] - wider[0] < high - low


def test_the_interval_covers_as_often_as_it_says() -> None:
    chance = random.Random(7)  # noqa: S311 - a sample, no secret
    held = 0
    for _ in range(400):
        times = sum(chance.random() < 0.1 for _ in range(60))
        low, high = wilson(times, 60)
        held += low <= 0.1 <= high
    assert held / 400 > 0.91


# --- in a night's report, and by itself ---------------------------------------------------------------


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def test_a_flaky_rung_is_in_the_report_and_in_the_list(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cells" in checked(flakes(bed.session()))

    def worse() -> None:
        assert bed.world.l2
        bed.world.l2.hypervisor = TCG

    nights.run(session(bed, runs=2, compare=False), before_looks(worse))
    nights.run(session(bed, runs=1, compare=False), replace(ROADS, up=blocked))  # knows no cell
    result = checked(nights.run(session(bed, runs=2, compare=False), ROADS))["night"]
    assert result["verdict"] == "confirmed"
    document = checked(flakes(bed.session()))
    (cell,) = document["cells"]
    (rung,) = [each for each in cell["rungs"] if each["flaky"]]
    assert (document["nights"], cell["nights"], cell["cell"]) == (3, 2, result["cell"])
    assert (rung["rung"], rung["tried"], rung["failed"]) == ("nested.boot", 4, 1)
    for form in ("report.html", "report.md", "summary.md"):
        text = (Path(result["evidence"]) / form).read_text()
        assert "Flaky in this cell" in text, form
        assert "1 of 4 (25.0%)" in text, form
    reply = flakes(bed.session(), limit=3)
    assert reply.show
    reply.show(Terminal(sys.stdout, width=120))
    printed = capsys.readouterr().out
    assert "nested.boot" in printed
    assert "vm.boot" not in printed
    assert "flaky" in printed


def test_a_night_of_a_steady_cell_says_nothing_of_it(bed: Bed) -> None:
    result = checked(nights.run(session(bed, runs=1, compare=False), ROADS))["night"]
    assert "Flaky" not in (Path(result["evidence"]) / "report.html").read_text()
    with pytest.raises(UsageError):
        flakes(bed.session(), limit=-1)

"""A night counts for the cell it was asked for only where it was measured to be of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.history.model import CELL, ClimbRecord, Night
from lab.model.domain import Verdict
from lab.nights.expecting import Expected, weigh

CPU = "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz"
CELLS: dict[str, Any] = dict.fromkeys(CELL, "x") | {
    "engine": "virtualbox",
    "engine_version": "7.1.4r165100",
    "cpu": CPU,
}
AT = "2026-12-01T03:04:05.678+00:00"


def night(verdict: str = "confirmed", cell: dict[str, Any] | None = CELLS, host: str = "mac-1") -> Night:
    run = ClimbRecord(1, "up", AT, 1.0, verdict, "nesting", "because", cell=cell)
    return Night(
        1, "u", "ended", AT, 1, "e", "1", verdict=verdict, reason="because", cell=cell, host=host, runs=[run]
    )


@pytest.mark.parametrize(
    "expected",
    [
        Expected(),
        Expected(host="mac-1", virtualbox="7.1", processor="Core(TM) i7-9750H"),
        Expected(virtualbox="7.1.4"),
        Expected(virtualbox="7"),
        Expected(processor="INTEL(R)  core(tm)"),
    ],
)
@pytest.mark.parametrize("verdict", ["confirmed", "refuted", "blocked"])
def test_what_ran_as_expected_keeps_its_word(expected: Expected, verdict: str) -> None:
    assert weigh(expected, night(verdict)) == (Verdict(verdict), "because")


@pytest.mark.parametrize(
    ("expected", "differs"),
    [
        (Expected(host="mac-2"), "expected host mac-2, observed mac-1"),
        (Expected(virtualbox="7.0"), "expected VirtualBox 7.0, observed VirtualBox 7.1.4r165100"),
        (Expected(virtualbox="7.1.40"), "expected VirtualBox 7.1.40"),
        (Expected(virtualbox="7.1.4r1651000"), "expected VirtualBox"),
        (Expected(processor="Core(TM) i7-975"), "expected processor Core(TM) i7-975, observed Intel(R)"),
        (Expected(processor="Apple M3"), "expected processor Apple M3"),
        (Expected(host="mac-2", processor="Apple M3"), "observed mac-1; expected processor Apple M3"),
    ],
)
def test_what_ran_elsewhere_is_inconclusive_and_says_what_differs(expected: Expected, differs: str) -> None:
    verdict, reason = weigh(expected, night())
    assert verdict is Verdict.INCONCLUSIVE
    assert reason.startswith("wrong host: expected")
    assert differs in reason
    assert reason.endswith("there it was confirmed: because")


@pytest.mark.parametrize("version", ["7.10.0", "7.1", "17.1", ""])
def test_a_version_is_told_by_its_parts(version: str) -> None:
    verdict, _ = weigh(Expected(virtualbox="7.1"), night(cell=CELLS | {"engine_version": version}))
    assert verdict is (Verdict.CONFIRMED if version == "7.1" else Verdict.INCONCLUSIVE)


def test_another_engine_is_not_virtualbox() -> None:
    _, reason = weigh(
        Expected(virtualbox="7.1"), night(cell=CELLS | {"engine": "qemu", "engine_version": "7.1"})
    )
    assert "expected VirtualBox 7.1, observed qemu 7.1" in reason


def test_one_run_of_another_cell_is_enough() -> None:
    mixed = night()
    other = replace(mixed.runs[0], cell=CELLS | {"engine_version": "7.2.0"})
    verdict, _ = weigh(Expected(virtualbox="7.1"), replace(mixed, runs=[*mixed.runs, other]))
    assert verdict is Verdict.INCONCLUSIVE


def test_a_night_that_measured_nothing_is_judged_by_its_host() -> None:
    nothing = night("blocked", cell=None)
    expected = Expected(host="mac-1", virtualbox="7.1", processor="i7")
    assert weigh(expected, nothing) == (Verdict.BLOCKED, "because")
    assert weigh(replace(expected, host="mac-2"), nothing)[0] is Verdict.INCONCLUSIVE
    assert weigh(expected, night("confirmed", cell=None))[0] is Verdict.INCONCLUSIVE
    assert weigh(Expected(host="mac-1"), night(host=""))[0] is Verdict.INCONCLUSIVE

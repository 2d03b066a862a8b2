"""theory.experiment on the embedded engine: a fresh VM a cell, and none left, not even by a killed run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Lab

pytestmark = pytest.mark.timeout(1800)


def _labs(lab: Lab) -> list[str]:
    folder = lab.state / "labs"
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("experiment-"))


def test_nesting_makes_the_difference_and_no_vm_is_left(lab: Lab) -> None:
    killed = lab.start("theory.experiment")
    until = time.monotonic() + 120
    while not list((lab.state / "labs").glob("experiment-*/vm/console.log")) and time.monotonic() < until:
        time.sleep(0.5)
    killed.kill()
    killed.communicate()
    assert _labs(lab) == ["experiment-1"]

    document = lab.json("theory.experiment", "--runs", "1")
    assert document["finding"] in ("nesting decides", "nesting made the difference"), document["sentence"]
    # An emulated kernel may panic now and then: such a trial is told, and is no answer.
    observed = [trial for trial in document["trials"] if trial["outcome"] == "observed"]
    assert len(observed) >= 4
    assert all(trial["worked"] is trial["delivered"]["nested"] for trial in observed)
    if document["where"]["acceleration"] == "tcg":
        assert {trial["delivered"]["paravirt"] for trial in observed} == {False}
    assert _labs(lab) == []
    evidence = Path(document["evidence"])
    assert {"experiment.json", "experiment.png", "experiment.html"} <= {
        path.name for path in evidence.iterdir()
    }

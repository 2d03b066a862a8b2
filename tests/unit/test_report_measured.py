"""What lab.compare and theory.experiment measured: in the reports of runs of the same cell, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core import deadline
from lab.core.errors import DeadlineError, UsageError
from lab.engines.protocol import EngineFacts
from lab.experiments import trial
from lab.experiments.result import Experiment
from lab.experiments.turns import plan
from lab.records.evidence import Run
from lab.tasks.lab.compare import compare
from lab.tasks.lab.report import report
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.theory.experiment import CELLS, DeliveredEntry, TrialOutcome
from tests import schema
from tests.unit.bed import IMAGE, Bed, checked
from tests.unit.fakes import FakeEmulator
from tests.unit.pages import Page
from tests.unit.reports import AT

NAME = "default"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    made = Bed(tmp_path, monkeypatch)
    assert up(made.session(), NAME).code == 0
    yield made
    deadline.cancelled.clear()


def reported(bed: Bed, **more: Any) -> tuple[dict[str, Any], Page, str]:
    """The report of the newest run as JSON, as a page, as Markdown."""
    found = {
        item["format"]: Path(item["path"]) for item in checked(report(bed.session(), NAME, **more))["files"]
    }
    document = json.loads(found["json"].read_text())
    schema.validate(document)
    return document, Page(found["html"].read_text()), found["markdown"].read_text()


def experimented(bed: Bed, **where: Any) -> Path:
    """An evidence folder as theory.experiment leaves it, of the bed's own cell but for `where`."""
    run = Run(bed.session().store.evidence_folder, "experiment", "experiment")
    trials = []
    for turn in plan(CELLS, 1, 7):
        nested = turn.cell.nested
        if turn.cell.paravirt == "default" and not nested:
            trials.append(trial.entry(turn, TrialOutcome.INCONCLUSIVE, "no login"))
            continue
        got = DeliveredEntry(
            paravirt=False,
            nested=nested,
            signature="TCGTCGTCGTCG",
            clocksources=("tsc",),
            extensions=("svm",) if nested else (),
        )
        trials.append(trial.entry(turn, TrialOutcome.OBSERVED, "seen", worked=nested, delivered=got))
    here = {"host": {"os": "Debian 12", "cpu": "A CPU", "arch": "x86_64"}}
    here |= {"engine": "qemu", "engine_version": "7.2", "acceleration": "kvm", "nesting": "hardware"}
    known = {"started": AT.isoformat(), "seconds": 60.0, "evidence": str(run.path), "lab_version": "1"}
    measured = Experiment.of(trials, where=here | {"image": IMAGE} | where, seed=7, **known)
    run.json("experiment.json", measured.document.as_json())
    measured.draw(run.path)
    return run.path


def test_a_comparison_is_in_the_report_of_the_run_before_it(bed: Bed) -> None:
    (before,) = bed.runs()
    source = Path(checked(compare(bed.session(), NAME, runs=2, seed=7))["evidence"])
    document, page, markdown = reported(bed)
    assert document["runs"][0]["folder"] == str(before)
    comparison = document["comparison"]
    assert [(one["name"], one["seconds"], one["note"]) for one in comparison["measures"]] == [
        ("canary, nested KVM", [6.0, 6.0], "2 of 2"),
        ("canary, no acceleration", [60.0, 60.0], "2 of 2"),
        ("canary, ARM image", [90.0, 90.0], "2 of 2"),
    ]
    ratio = comparison["ratios"][0]
    assert (ratio["ratio"], ratio["n"], ratio["low"], ratio["high"]) == (10.0, 2, 10.0, 10.0)
    assert [(each["name"], each["ratio"]) for each in comparison["ratios"][1:]] == [
        ("canary: L2's boot with ARM image over nested KVM", 15.0),
        ("canary: L2's boot with ARM image over no acceleration", 1.5),
    ]
    assert "seed 7" in comparison["note"]
    assert comparison["source"]["run"] == source.name
    said = "10.0 times (10.0 to 10.0), n = 2"
    assert said in page.one("main").said and said in markdown
    assert source.name in page.one("main").said
    assert f"../{source.name}/compare.html" in page.attribute("href")
    assert all(value.startswith("data:") for value in page.attribute("src")), "it needs nothing but itself"


def test_what_the_runs_themselves_measured_comes_first(bed: Bed) -> None:
    compare(bed.session(), NAME, runs=2)
    validate(bed.session(), NAME, compare=True)
    comparison = reported(bed)[0]["comparison"]
    assert (comparison["source"], comparison["ratios"][0]["n"]) == (None, 1)


def test_the_newest_comparison_counts_and_one_that_lost_a_side_has_no_ratio(bed: Bed) -> None:
    compare(bed.session(), NAME, runs=1)

    def boots(_emulator: object, acceleration: str, _deadline: object) -> float:
        if acceleration == "tcg":
            raise DeadlineError("nothing was heard")
        return 5.0

    bed.world.boots = boots
    assert compare(bed.session(), NAME, runs=1).code == 12
    document, page, _ = reported(bed)
    assert document["comparison"]["ratios"] == []
    assert "canary, no acceleration: not measured (0 of 1; 1 timeout)" in page.one("main").said


Change = Callable[[Bed], None]


def _other_version(bed: Bed) -> None:
    bed.world.facts = EngineFacts("qemu", "8.0", "kvm", "hardware", "fake")


def _other_nesting(bed: Bed) -> None:
    bed.world.facts = EngineFacts("qemu", "7.2", "tcg", "emulated", "fake")


def _other_image(bed: Bed) -> None:
    bed.patch.setattr(FakeEmulator, "image_id", lambda _self: "canary@sha256:newer")


@pytest.mark.parametrize("change", [_other_version, _other_nesting, _other_image])
def test_a_comparison_of_another_cell_is_left_out(bed: Bed, change: Change) -> None:
    compare(bed.session(), NAME, runs=1)
    assert reported(bed)[0]["comparison"]
    change(bed)
    validate(bed.session(), NAME)
    assert reported(bed)[0]["comparison"] is None


def test_a_comparison_on_another_lab_is_left_out(bed: Bed) -> None:
    folder = Path(compare(bed.session(), NAME, runs=1).document["evidence"])
    other = folder.parent.parent / "other"
    other.mkdir()
    folder.rename(other / folder.name)
    assert reported(bed)[0]["comparison"] is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": "lab.compare/1"}'])
def test_a_damaged_measurement_costs_no_report(bed: Bed, damage: str) -> None:
    good = Path(compare(bed.session(), NAME, runs=1).document["evidence"])
    bad = Path(compare(bed.session(), NAME, runs=1).document["evidence"])
    (bad / "compare.json").write_text(damage)
    assert reported(bed)[0]["comparison"]["source"]["run"] == good.name


def test_the_experiment_is_in_the_report_of_its_cell(bed: Bed) -> None:
    source = experimented(bed)
    document, page, markdown = reported(bed)
    found = document["experiment"]
    assert found["sentence"] == json.loads((source / "experiment.json").read_text())["sentence"]
    cells = {
        (one["paravirt"], one["nested"]): (one["worked"], one["runs"], one["note"]) for one in found["trials"]
    }
    assert cells["kvm", True] == (1, 1, "svm, no KVM interface")
    assert cells["none", False] == (0, 1, "no vmx or svm, no KVM interface")
    assert cells["default", False] == (0, 0, "1 inconclusive")
    assert (found["seed"], found["source"]["lab"], found["source"]["run"]) == (7, "experiment", source.name)
    text = page.one("main").said
    assert found["sentence"] in text and "gave no answer" in text
    assert f"../../experiment/{source.name}/experiment.html" in page.attribute("href")
    assert "| kvm | on | 1 of 1 | svm, no KVM interface |" in markdown
    assert source.name.replace("-", "\\-") in markdown or source.name in markdown


@pytest.mark.parametrize(
    "where",
    [
        {"engine": "virtualbox"},
        {"engine_version": "8.0"},
        {"acceleration": "tcg"},
        {"image": "ubuntu-24.04-1"},
        {"host": {"os": "Debian 13", "cpu": "A CPU", "arch": "x86_64"}},
        {"host": {"os": "Debian 12", "cpu": "Another CPU", "arch": "x86_64"}},
        {
            "host": {
                "os": "Debian 12",
                "cpu": "A CPU",
                "arch": "x86_64",
                "pc": "Bochs 2.7, corei7_haswell_4770",
            }
        },
    ],
)
def test_an_experiment_of_another_cell_is_left_out(bed: Bed, where: dict[str, Any]) -> None:
    experimented(bed, **where)
    assert reported(bed)[0]["experiment"] is None


def test_an_experiment_has_pages_of_its_own(bed: Bed) -> None:
    folder = experimented(bed)
    with pytest.raises(UsageError) as refused:
        report(bed.session(), "experiment")
    assert str(folder / "experiment.html") in refused.value.hint
    markdown = (folder / "experiment.md").read_text()
    assert markdown.startswith("# What makes /dev/kvm work in the VM")
    assert "| paravirt kvm, nested on | 1 of 1 | svm, no KVM interface |" in markdown


def test_a_comparison_has_pages_of_its_own(bed: Bed) -> None:
    folder = Path(compare(bed.session(), NAME, runs=1).document["evidence"])
    markdown = (folder / "compare.md").read_text()
    assert "without nested KVM L2 took 10.0 times as long to boot" in markdown
    assert "| canary | nested KVM | 1 of 1 | 6.0 s | 6.0 s | 6.0 s |" in markdown

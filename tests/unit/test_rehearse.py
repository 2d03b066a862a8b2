"""theory.rehearse: what the PC's lab answered is believed as far as it follows, and never further."""

from __future__ import annotations

import copy
import html
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.config import load
from lab.core.deadline import cancelled
from lab.core.errors import InterruptedByUser
from lab.core.steps import Event
from lab.experiments import trial
from lab.experiments.result import Experiment
from lab.experiments.turns import plan
from lab.ladder.rungs import LADDER
from lab.reports import RunFolder, history
from lab.tasks.theory.rehearse import rehearse
from lab.theory.experiment import CELLS, DeliveredEntry, TrialOutcome
from tests import schema
from tests.unit.fakepc import NAME
from tests.unit.rehearsaldesk import AT, Desk, checked, climbed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    yield Desk(tmp_path, monkeypatch)
    cancelled.clear()


# --- the ladder ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fails", "verdict", "code"), [("", "confirmed", 0), ("guest.kvm", "refuted", 10)])
def test_the_verdict_on_nesting_is_the_answer(desk: Desk, fails: str, verdict: str, code: int) -> None:
    answer = climbed(fails)
    desk.answers(code, answer)
    found, exit_code, told = checked(desk)
    assert (found["verdict"], exit_code) == (verdict, code)
    assert found["claims"]["theory"]["verdict"] == "not applicable"
    assert found["claims"]["android"]["verdict"] == "blocked"
    assert found["pc"]["processor"] == "corei7_haswell_4770" and found["pc"]["trouble"] is None
    assert found["pc"]["image"] == "rehearsal-sid-1"
    assert found["cell"] == answer["cell"] and len(found["rungs"]) == len(LADDER.names)
    assert [(task["words"][0], task["status"]) for task in found["tasks"]] == [
        ("lab.up", code),
        ("lab.destroy", None),
    ]
    for word in (
        f"nesting: {verdict}",
        NAME,
        "nested VT-x",
        "Hypervisor.framework",
        "lab.destroy did not end",
    ):
        assert word in told, word


def test_the_report_is_written_here_and_names_the_layer_below(desk: Desk) -> None:
    desk.answers(0, climbed())
    found, _, told = checked(desk)
    page = Path(found["report"])
    run = Path(found["evidence"])
    assert page == run / "evidence/default/20261201T000000.000Z-up/report.html"
    assert "the emulated PC below L0" in page.read_text() and NAME in page.read_text()
    assert "<b>so</b>" not in page.read_text()
    assert str(page) in told
    assert {"report.md", "report.json", "junit.xml"} <= {path.name for path in page.parent.iterdir()}
    assert (run / "pc" / "serial.log").is_file() and (run / "steps.jsonl").is_file()
    assert history([RunFolder(run)]) == (), "it is no run of a lab here"


def test_it_is_lab_up_on_virtualbox_that_runs_in_there(desk: Desk) -> None:
    desk.answers(0, climbed())
    checked(desk)
    ((job, images),) = zip(desk.pcs.disk.jobs, desk.pcs.disk.images, strict=True)
    assert job.tasks == (
        ("lab.up", "--engine", "virtualbox", "--json"),
        ("lab.destroy", "--json"),
    )
    assert job.environment["LAB_REHEARSAL__PC"] == NAME
    assert {path.name for path in images} == {"debian-13-1", "canary-1"}
    assert desk.needed == [{"rehearsal"}]
    assert desk.pcs.asked[-1] == ("haswell", "my-bochs")


def test_what_lab_is_told_in_there_is_a_configuration_that_lab_takes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.answers(0, climbed())
    checked(desk)
    for name, value in desk.pcs.disk.jobs[0].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lab.config.loading.host_limits", lambda: (1, 2048))
    settings = load()
    assert (settings.rehearsal.pc, settings.install, settings.image) == (NAME, "never", "debian-13")
    assert (settings.vm.memory_mib, settings.vm.cpus, settings.emulator.kind) == (1024, 1, "canary")
    assert settings.virtualbox.allow_nested_on_host


# --- what is not believed --------------------------------------------------------------------------


def _of_no_pc(found: dict[str, Any]) -> None:
    del found["cell"]["host"]["pc"]


def _of_another_pc(found: dict[str, Any]) -> None:
    found["cell"]["host"]["pc"] = "Bochs 3.0, ryzen"


def _real(found: dict[str, Any]) -> None:
    found["cell"]["emulated"] = False


def _better_than_its_rungs(found: dict[str, Any]) -> None:
    found["claims"]["android"]["verdict"] = "confirmed"


def _worse_than_its_rungs(found: dict[str, Any]) -> None:
    found["claims"]["nesting"]["verdict"] = found["verdict"] = "refuted"


def _a_rung_twice(found: dict[str, Any]) -> None:
    found["rungs"][2] = copy.deepcopy(found["rungs"][1])


def _of_no_schema(found: dict[str, Any]) -> None:
    found["rungs"] = "all passed"


def _of_another_schema(found: dict[str, Any]) -> None:
    found.clear()
    found.update({"schema": "lab.action/1"})


@pytest.mark.parametrize(
    "lie",
    [
        _of_no_pc,
        _of_another_pc,
        _real,
        _better_than_its_rungs,
        _worse_than_its_rungs,
        _a_rung_twice,
        _of_no_schema,
        _of_another_schema,
    ],
)
def test_an_answer_that_does_not_follow_settles_nothing(
    desk: Desk, lie: Callable[[dict[str, Any]], None]
) -> None:
    answer = climbed()
    lie(answer)
    desk.answers(0, answer)
    found, code, _ = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"] is found["cell"] is found["report"] is None and found["rungs"] == []


def test_no_page_is_made_of_evidence_that_lies(desk: Desk) -> None:
    lie = climbed()
    _better_than_its_rungs(lie)
    desk.answers(0, climbed(), kept=lie)
    found, code, _ = checked(desk)
    assert (found["verdict"], code, found["report"]) == ("confirmed", 0, None)


@pytest.mark.parametrize(("exit_code", "verdict", "code"), [(11, "blocked", 11), (1, "inconclusive", 12)])
def test_an_error_in_there_is_named_and_refutes_nothing(
    desk: Desk, exit_code: int, verdict: str, code: int
) -> None:
    error = {"what": "vboxdrv is not loaded", "hint": "", "evidence": [], "tail": "", "exit_code": exit_code}
    desk.pcs.leaves(**{"lab.up": (exit_code, {"schema": "lab.error/1", "error": error})})
    found, exited, told = checked(desk)
    assert (found["verdict"], exited) == (verdict, code)
    assert "vboxdrv is not loaded" in found["reason"] and "vboxdrv is not loaded" in told


def test_no_answer_at_all_is_inconclusive(desk: Desk) -> None:
    desk.pcs.leaves(**{"lab.up": (137, {})})
    found, code, told = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert "the last words of lab.up" in told
    assert "ended with status 137, and gave no answer" in found["reason"]


def test_a_pc_that_ended_badly_settles_nothing_and_says_what_it_had_come_to(desk: Desk) -> None:
    desk.answers(0, climbed())
    desk.pcs.script += "\necho 'BUG: soft lockup' >>serial.log\nexit 7"
    found, code, told = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"]["nesting"]["verdict"] == "inconclusive"
    assert "status 7" in found["pc"]["trouble"]
    assert "lab.up had come to confirmed" in found["reason"]
    assert "BUG: soft lockup" in told
    assert found["report"]


def test_ctrl_c_keeps_the_evidence(desk: Desk) -> None:
    desk.answers(0, climbed())
    desk.pcs.script += "\nsleep 60"

    def interrupt(event: Event) -> None:
        if event.name == "host.cpu" and event.kind == "finished":
            cancelled.set()

    session = desk.session
    session.steps.subscribe(interrupt)
    with pytest.raises(InterruptedByUser):
        rehearse(session, tools=desk.tools)
    assert session.evidence is not None and "measures anew" in session.again
    kept = json.loads((session.evidence / "rehearse.json").read_text())
    schema.validate(kept)
    assert (kept["verdict"], kept["pc"]["trouble"]) == ("inconclusive", "interrupted")
    assert list((desk.folder / "state" / "rehearsals").iterdir()) == []


# --- the experiment --------------------------------------------------------------------------------


def tried(pc: str = NAME) -> dict[str, Any]:
    """theory.experiment/1 of the PC, in which nesting decides."""
    trials = []
    accepted = {
        "cpus": "1",
        "memory_mib": "1024",
        "nested": "on",
        "paravirt": "kvm",
        "acceleration": "hwvirt",
    }
    for turn in plan(CELLS, 1, 7):
        nested, paravirt = turn.cell.nested, turn.cell.paravirt != "none"
        got = DeliveredEntry(
            paravirt=paravirt,
            nested=nested,
            signature="KVMKVMKVM" if paravirt else "",
            clocksources=("kvm-clock", "tsc") if paravirt else ("tsc",),
            extensions=("vmx",) if nested else (),
        )
        observed = {"worked": nested, "delivered": got, "accepted": accepted, "seconds": 180.0}
        trials.append(trial.entry(turn, TrialOutcome.OBSERVED, "seen", **observed))
    where = {
        "host": {"os": "Debian GNU/Linux sid", "cpu": "Intel i7-4770", "arch": "x86_64", "pc": pc},
        "engine": "virtualbox",
        "engine_version": "7.2.22",
        "acceleration": "hwvirt",
        "nesting": "hardware",
        "image": "debian-13-0a1b",
    }
    known = {"started": AT.isoformat(), "seconds": 1080.0, "evidence": "/srv/state/evidence/experiment/1"}
    return Experiment.of(trials, where=where, seed=7, lab_version="1", **known).document.as_json()


def _left_experiment(desk: Desk, found: dict[str, Any]) -> None:
    folder = "evidence/experiment/20261201T000000.000Z-experiment"
    run = {"lab": "experiment", "verb": "experiment", "started": AT.isoformat(), "order": 1}
    desk.pcs.leaves(files={f"{folder}/run.json": run}, **{"theory.experiment": (0, found)})


def test_the_experiment_has_its_table_its_picture_and_its_sentence(desk: Desk) -> None:
    _left_experiment(desk, tried())
    found, code, told = checked(desk, experiment=True)
    assert (found["verdict"], code, found["claims"]) == (None, 0, None)
    assert found["experiment"]["finding"] == "nesting decides"
    assert found["reason"] == found["experiment"]["sentence"]
    assert found["reason"] in told and "paravirt kvm, nested on" in told
    page = Path(found["report"])
    assert page.parent == Path(found["experiment"]["evidence"])
    assert page.name == "experiment.html" and found["reason"] in html.unescape(page.read_text())
    assert (page.parent / "experiment.png").read_bytes().startswith(b"\x89PNG")
    assert desk.pcs.disk.jobs[0].tasks == (("theory.experiment", "--engine", "virtualbox", "--json"),)


def test_an_experiment_of_another_host_settles_nothing(desk: Desk) -> None:
    other = tried()
    del other["where"]["host"]["pc"]
    unlike = tried()
    unlike["trials"][0]["worked"] = None  # observed, and not
    for answer in (other, unlike, tried("Bochs 3.0, ryzen"), climbed()):
        _left_experiment(desk, answer)
        found, code, _ = checked(desk, experiment=True)
        assert (found["experiment"], found["report"], code) == (None, None, 12)

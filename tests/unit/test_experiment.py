"""theory.experiment: a fresh VM a cell, none left behind, and a sentence of what reached the guests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.core import lock
from lab.core.deadline import cancelled
from lab.core.errors import BusyError, DeadlineError, InterruptedByUser, LabError, UsageError
from lab.core.steps import Event
from lab.documents.measured import TheoryExperiment
from lab.engines.protocol import MachineSpec, NestingRefusedError, State
from lab.experiments import trial
from lab.experiments.result import Experiment
from lab.records.record import new_record
from lab.tasks.theory.experiment import experiment
from tests import schema
from tests.unit.bed import Bed, checked
from tests.unit.fakes import KVM, TCG, World
from tests.unit.probed import cpu_facts, kvm_probe


class Engine:
    """An engine whose VMs get what `emulated` and the spec say; `specs` of all that were started."""

    def __init__(self, world: World) -> None:
        self.world, self.emulated = world, False
        self.specs: list[MachineSpec] = []
        self.refuses: dict[str, Exception] = {}
        """By `on` and `off`, or the paravirtualization: what a start with it raises."""
        world.started = self._started

    def _started(self, spec: MachineSpec) -> None:
        self.specs.append(spec)
        for word in ("on" if spec.nested else "off", spec.paravirt):
            if word in self.refuses:
                self.world.state = State.STOPPED
                raise self.refuses[word]
        interface = not self.emulated and spec.paravirt != "none"
        cpu = cpu_facts()["cpu"] | {
            "flags": ["svm"] if spec.nested else [],
            "hypervisor": KVM if interface else TCG if self.emulated else "",
            "nested_paging": True if spec.nested else None,
        }
        clocks = ["kvm-clock", "tsc"] if interface else ["tsc"]
        self.world.l1_facts = {"cpu": cpu, "clocksources": clocks, "clocksource": clocks[0]}
        device = kvm_probe()["device"] | {
            "exists": False,
            "opened": False,
            "failure": "absent",
            "error": "it is absent",
        }
        absent = {"device": device, "real_mode": None, "long_mode": None}
        self.world.probe = kvm_probe() if spec.nested else kvm_probe(**absent)


@pytest.fixture
def engine(bed: Bed) -> Engine:
    return Engine(bed.world)


def labs(bed: Bed) -> list[str]:
    return [lab.name for lab in bed.session().store.labs()]


def test_nesting_decides_where_both_are_delivered(bed: Bed, engine: Engine) -> None:
    reply = experiment(bed.session(), runs=2, seed=5)
    document = checked(reply)
    assert (document["finding"], reply.code) == ("nesting decides", 0)
    assert [(cell["observed"], cell["worked"]) for cell in document["cells"]] == [(2, 2)] * 3 + [(2, 0)] * 3
    assert all(row["accepted"]["nested"] in ("on", "off") for row in document["trials"])
    run = Path(document["evidence"])
    assert (run / "experiment.png").read_bytes().startswith(b"\x89PNG")
    assert "nesting decides" in (run / "experiment.html").read_text()
    assert len(list((run / "trials").glob("*.json"))) == 12
    assert (run / "trials" / "01-console.log").read_text() == "console of L1\n"


def test_in_an_emulated_pc_it_is_said_and_drawn_outside(bed: Bed, engine: Engine) -> None:
    told = "Bochs 2.7, corei7_haswell_4770"
    document = checked(experiment(bed.session(rehearsal={"pc": told}), seed=5))
    assert document["where"]["host"]["pc"] == told
    run = Path(document["evidence"])
    assert (run / "experiment.json").is_file() and not (run / "experiment.png").exists()
    kept = json.loads((run / "experiment.json").read_text())
    read = Experiment(TheoryExperiment.read(kept))
    assert read.document.as_json() == kept == document
    assert (read.code, read.conclusion.finding) == (0, "nesting decides")
    read.draw(run)
    assert (run / "experiment.png").read_bytes().startswith(b"\x89PNG")


def test_every_trial_has_a_vm_of_its_own_and_none_is_left(bed: Bed, engine: Engine) -> None:
    document = checked(experiment(bed.session(), runs=1))
    assert len({spec.uuid for spec in engine.specs}) == 6
    started = [(spec.paravirt, spec.nested) for spec in engine.specs]
    asked = [(row["asked"]["paravirt"], row["asked"]["nested"]) for row in document["trials"]]
    assert started == asked and len(set(started)) == 6
    assert bed.world.calls.count("create") == bed.world.calls.count("destroy") == 6
    assert not {"docker", "prepare", "launch"} & set(bed.world.calls)  # nothing that no rung here needs
    assert labs(bed) == []
    assert sorted(path.name for path in bed.session().store.evidence_folder.iterdir()) == ["experiment"]


def test_under_emulation_paravirtualization_is_asked_for_and_not_delivered(bed: Bed, engine: Engine) -> None:
    engine.emulated = True
    reply = experiment(bed.session(), runs=1)
    document = checked(reply)
    assert (document["finding"], reply.code) == ("nesting made the difference", 0)
    assert "reached the guest in none" in document["sentence"]
    assert {row["delivered"]["paravirt"] for row in document["trials"]} == {False}


def test_a_rung_that_only_informs_is_told_of_as_such(bed: Bed, engine: Engine) -> None:
    engine.emulated = True
    heard: list[Event] = []
    session = bed.session()
    session.steps.subscribe(heard.append)
    experiment(session, runs=1, seed=5)
    failed = {(event.name, event.informs) for event in heard if event.kind == "failed"}
    assert failed == {("guest.paravirt", True), ("guest.cpu", False)}


def test_a_setting_the_engine_refuses_blocks_its_cell_with_the_reason(bed: Bed, engine: Engine) -> None:
    engine.refuses["on"] = NestingRefusedError("nesting needs nested paging")
    reply = experiment(bed.session(), runs=1)
    document = checked(reply)
    nested = [row for row in document["trials"] if row["asked"]["nested"]]
    assert {row["outcome"] for row in nested} == {"blocked"}
    assert {row["why"] for row in nested} == {"vm.settings: nesting needs nested paging"}
    assert "3 of 6 runs gave no answer (3 blocked)" in document["sentence"]
    assert "nesting alone is not enough" not in document["sentence"]
    assert labs(bed) == []


def test_a_setting_that_is_not_taken_blocks_its_cell(bed: Bed, engine: Engine) -> None:
    bed.world.accepted = {"nested": "off"}
    document = checked(experiment(bed.session(), runs=1))
    nested = [row for row in document["trials"] if row["asked"]["nested"]]
    assert {row["outcome"] for row in nested} == {"blocked"}
    assert "did not take: nested" in nested[0]["why"]
    assert nested[0]["accepted"]["nested"] == "off"


def test_an_engine_that_cannot_be_used_blocks_everything(bed: Bed, engine: Engine) -> None:
    for word in ("on", "off"):
        engine.refuses[word] = NestingRefusedError("no hypervisor")
    reply = experiment(bed.session(), runs=1)
    assert (checked(reply)["finding"], reply.code) == ("insufficient", 11)


def test_a_vm_that_does_not_come_up_is_inconclusive(bed: Bed, engine: Engine) -> None:
    engine.refuses["default"] = LabError("the hypervisor crashed")
    document = checked(experiment(bed.session(), runs=1))
    default = [row for row in document["trials"] if row["asked"]["paravirt"] == "default"]
    assert {row["outcome"] for row in default} == {"inconclusive"}
    assert document["finding"] == "nesting decides"  # of what was seen
    assert "2 of 6 runs gave no answer (2 inconclusive)" in document["sentence"]


@pytest.mark.parametrize(
    ("failure", "outcome", "code"),
    [("permission", "inconclusive", 12), ("resource", "inconclusive", 12), ("tool", "blocked", 11)],
)
def test_a_probe_that_could_not_look_shows_nothing(
    bed: Bed, engine: Engine, failure: str, outcome: str, code: int
) -> None:
    started = bed.world.started

    def denied(spec: MachineSpec) -> None:
        started(spec)
        device = kvm_probe()["device"] | {"opened": False, "failure": failure, "error": "it failed"}
        bed.world.probe = kvm_probe(device=device, real_mode=None, long_mode=None)

    bed.world.started = denied
    reply = experiment(bed.session(), runs=1)
    assert {row["outcome"] for row in checked(reply)["trials"]} == {outcome}
    assert reply.code == code


@pytest.mark.parametrize("error", [InterruptedByUser("interrupted"), KeyboardInterrupt()])
def test_an_interruption_keeps_what_was_seen_and_removes_the_vm(
    bed: Bed, engine: Engine, error: BaseException
) -> None:
    started = bed.world.started

    def interrupted(spec: MachineSpec) -> None:
        started(spec)
        if len(engine.specs) == 3:
            cancelled.set()
            raise error

    bed.world.started = interrupted
    session = bed.session()
    with pytest.raises(type(error)):
        experiment(session, runs=1, seed=1)
    assert session.evidence is not None
    document = json.loads((session.evidence / "experiment.json").read_text())
    schema.validate(document)
    assert [row["outcome"] for row in document["trials"]] == ["observed"] * 2 + ["not taken"] * 4
    assert (session.evidence / "experiment.png").exists()
    assert labs(bed) == []
    assert bed.world.state is State.ABSENT
    assert cancelled.is_set()


def test_what_a_killed_run_left_is_swept_by_its_mark_alone(bed: Bed, engine: Engine) -> None:
    store = bed.session().store
    for name, marked in (("experiment-1", True), ("experiment-2", False), ("mine", True)):
        lab = store.place(name)
        if marked:
            lab.journal.intend(trial.MARK, "an earlier run")
        lab.create(
            new_record(
                name,
                engine="qemu",
                emulator="none",
                cpus=1,
                memory_mib=512,
                disk_gib=4,
                paravirt="kvm",
                nested=True,
            )
        )
    half_made = store.place("experiment-9")
    half_made.journal.intend(trial.MARK, "an earlier run")
    checked(experiment(bed.session(), runs=1))
    assert labs(bed) == ["experiment-2", "mine"]


def test_a_lab_that_cannot_be_removed_is_told_and_left_to_the_next_run(bed: Bed, engine: Engine) -> None:
    failures = [LabError("the disk is busy")]

    def first_fails() -> None:
        bed.world.broken = {"destroy": failures.pop()} if failures else {}

    bed.world.before["destroy"] = first_fails
    assert checked(experiment(bed.session(), runs=1))["finding"]
    assert len(labs(bed)) == 1
    checked(experiment(bed.session(), runs=1))
    assert labs(bed) == []


def test_the_users_ports_and_labs_are_left_alone(bed: Bed, engine: Engine) -> None:
    session = bed.session(ports={"ssh": 34567})
    checked(experiment(session, runs=1))
    assert session.settings.ports.ssh == 34567
    assert all(forward.host_port != 34567 for forward in bed.world.forwards)


def test_only_one_at_a_time_and_at_least_one_run(bed: Bed, engine: Engine) -> None:
    path = bed.session().store.state / "experiment.lock"
    with (
        lock.hold(path, "theory.experiment", "the experiment"),
        pytest.raises(BusyError, match="held by"),
    ):
        experiment(bed.session())
    with pytest.raises(UsageError, match="tries nothing"):
        experiment(bed.session(), runs=0)


def test_a_timeout_is_no_answer(bed: Bed, engine: Engine) -> None:
    engine.refuses["none"] = DeadlineError("no login in 600 s")
    document = checked(experiment(bed.session(), runs=1))
    assert [row["outcome"] for row in document["trials"]].count("inconclusive") == 2
    assert document["finding"] != "nesting decides"  # no guest went without the interface


def test_a_disk_too_small_for_any_trial_is_refused_before_anything_is_removed(bed: Bed) -> None:
    lab = bed.session().store.place("experiment-1")
    lab.journal.intend("experiment", "of a run that was killed")
    with pytest.raises(UsageError, match="smaller than the image"):
        experiment(bed.session(image="debian-13", vm={"disk_gib": 5}), runs=1)
    assert lab.folder.is_dir() and not bed.session().store.evidence_folder.exists()

"""lab.validate and what every climb does: look and change nothing, keep the evidence, name the cell."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.core.errors import DeadlineError, InterruptedByUser, LabError, UsageError
from lab.emulators.protocol import ContainerState, NestedFailedError
from lab.engines.protocol import EngineFacts, State
from lab.model.domain import Claim
from lab.tasks.lab import power
from lab.tasks.lab.evidence import evidence
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow.climbing import check_claim
from tests.unit import fakes, probed
from tests.unit.bed import Bed, checked, host, rungs
from tests.unit.fakes import KVM, TCG, FakeEmulator, World


def _validate(bed: Bed, **more: Any) -> tuple[dict[str, Any], int]:
    reply = validate(bed.session(), "default", **more)
    return checked(reply), reply.code


def test_validate_confirms_what_is_there_and_changes_nothing(ready: Bed) -> None:
    with ready.untouched():
        document, code = _validate(ready)
    assert (document["verdict"], code) == ("confirmed", 0)
    assert document["schema"] == "lab.validation/1"


def test_the_claim_that_chooses_the_exit_code_is_not_what_is_remembered(ready: Bed) -> None:
    document, code = _validate(ready, claim="android")
    assert (document["verdict"], code) == ("blocked", 11)
    assert ready.lab().record().verdict == "confirmed"
    with ready.untouched("prove"):
        assert up(ready.session(), "default").code == 0


def test_the_cell_says_how_the_engine_was_spoken_to_and_why(ready: Bed) -> None:
    assert "transport" not in _validate(ready)[0]["cell"], "of an engine with one way only"
    details = {"transport": "VBoxManage", "transport_why": "no module xpcom", "python": "3.13"}
    ready.world.facts = dataclasses.replace(ready.world.facts, details=details)
    reply = validate(ready.session(), "default")
    assert checked(reply)["cell"]["transport"] == "VBoxManage: no module xpcom"
    assert reply.show is not None
    with (console := Console()).capture() as shown:
        reply.show(console)
    assert "spoken to over VBoxManage: no module xpcom" in shown.get()


@pytest.mark.parametrize("state", [State.STOPPED, State.SUSPENDED, State.PAUSED, State.ABSENT])
def test_validate_starts_nothing(ready: Bed, state: State) -> None:
    ready.world.state = state
    known = ready.lab().record().boot_id
    with ready.untouched():
        document, code = _validate(ready)
    assert (document["verdict"], code, rungs(document)["vm.settings"]) == ("blocked", 11, "blocked")
    assert ready.world.state is state
    # A suspended VM comes back with its boot id: an answer from L1 itself must still be known as such.
    assert ready.lab().record().boot_id == known != ""


def test_vm_that_booted_anew_by_itself_is_told_until_it_was_looked_at(ready: Bed) -> None:
    def told() -> bool:
        document, _ = _validate(ready)
        seen = next(row["observed"] for row in document["rungs"] if row["rung"] == "vm.boot")
        assert document["facts"]["vm.boot"].get("booted_anew", False) is ("booted anew" in seen)
        return "booted anew since it was looked at last, and not by lab" in seen

    assert not told()
    ready.world.l1_boots += 1
    assert told() and not told()


def test_vm_that_lab_started_anew_is_not_told(ready: Bed) -> None:
    assert power.halt(ready.session(), "default").code == 0
    reply = up(ready.session(), "default")
    assert ready.world.l1_boots == 2 and reply.document["facts"]["vm.boot"]["boot_id"] == "boot-of-l1-2"
    assert "booted anew" not in json.dumps(reply.document)


def test_validate_launches_no_l2(ready: Bed) -> None:
    ready.world.l2 = None
    with ready.untouched():
        document, code = _validate(ready)
    assert (document["verdict"], code, rungs(document)["nested.boot"]) == ("inconclusive", 12, "inconclusive")


@pytest.mark.parametrize(
    ("nonce", "boot_id", "hypervisor", "verdict", "code"),
    [
        ("", "boot-of-l2-1", KVM, "inconclusive", 12),
        ("of another lab", "boot-of-l2-1", KVM, "inconclusive", 12),
        ("of another lab", "boot-of-l2-1", TCG, "inconclusive", 12),
        (None, "boot-of-l1-1", KVM, "inconclusive", 12),
        (None, "", KVM, "inconclusive", 12),
        (None, "boot-of-l2-1", TCG, "refuted", 10),
        (None, "boot-of-l2-1", "", "refuted", 10),
        (None, "boot-of-l2-1", KVM, "confirmed", 0),
    ],
)
def test_only_this_labs_l2_settles_the_claim(
    ready: Bed, nonce: str | None, boot_id: str, hypervisor: str, verdict: str, code: int
) -> None:
    l2 = ready.world.l2
    assert l2
    l2.nonce = l2.nonce if nonce is None else nonce
    l2.boot_id, l2.hypervisor = boot_id, hypervisor
    document, got = _validate(ready)
    assert (document["verdict"], got) == (verdict, code)
    assert ready.lab().record().verdict == verdict


def test_comparing_measures_an_l2_under_kvm_only(ready: Bed) -> None:
    document, _ = _validate(ready, compare=True)
    assert document["facts"]["nested.compare"] == {
        "with_kvm_seconds": 6.0,
        "without_kvm_seconds": 60.0,
        "ratio": 10.0,
        "n": 1,
    }
    assert ready.world.l2
    ready.world.l2.hypervisor = TCG
    assert "nested.compare" not in _validate(ready, compare=True)[0]["facts"]


def test_a_claim_is_one_of_those_there_are(ready: Bed) -> None:
    assert check_claim("") is None
    assert check_claim("theory") is Claim.THEORY
    with pytest.raises(UsageError, match="nestling"):
        _validate(ready, claim="nestling")
    # What this host cannot test is never confirmed, however well the rungs do.
    assert _validate(ready, claim="theory")[1] == 11
    assert _validate(ready, claim="android")[1] == 11


@pytest.mark.parametrize(
    ("engine", "cpu", "signature", "emulated"),
    [
        (("kvm", "hardware"), "AMD EPYC", "", False),
        (("kvm", "hardware"), "AMD EPYC", KVM, False),
        (("tcg", "emulated"), "AMD EPYC", "", True),
        (("tcg", "none"), "AMD EPYC", "", True),
        (("kvm", "hardware"), "QEMU TCG CPU version 2.5+", KVM, True),
        (("kvm", "hardware"), "AMD EPYC", TCG, True),
        (("kvm", "hardware"), "QEMU Virtual CPU version 2.5+", None, None),
        (("kvm", "hardware"), "AMD EPYC", "SomethingNew", None),
        (("unknown", "hardware"), "AMD EPYC", "", None),
    ],
)
def test_a_software_processor_anywhere_makes_the_cell_emulated(
    ready: Bed, monkeypatch: pytest.MonkeyPatch, engine: Any, cpu: str, signature: str | None, emulated: bool
) -> None:
    ready.world.facts = EngineFacts("qemu", "7.2", engine[0], engine[1], "fake")
    ready.use(host=lambda: host(cpu=cpu, signature=signature))
    assert _validate(ready)[0]["cell"]["emulated"] is emulated


def test_what_l1_itself_says_of_its_processor_counts(ready: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = probed.cpu_facts()["cpu"] | {"hypervisor": TCG}
    monkeypatch.setattr(fakes, "cpu_facts", partial(probed.cpu_facts, cpu=cpu))
    assert _validate(ready)[0]["cell"]["emulated"] is True


@pytest.mark.parametrize(("signature", "verdict"), [(None, "blocked"), (TCG, "blocked"), ("", "confirmed")])
def test_android_is_not_confirmed_where_nothing_shows_that_the_hardware_is_real(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, signature: str | None, verdict: str
) -> None:
    bed.use(host=lambda: host(signature=signature))
    bed.world.android = True
    document = checked(up(bed.session(emulator="docker-android"), "default"))
    assert document["claims"]["android"]["verdict"] == verdict


def test_an_engine_without_nesting_never_confirms(ready: Bed) -> None:
    ready.world.facts = EngineFacts("qemu", "7.2", "kvm", "none", "fake")
    assert _validate(ready)[0]["verdict"] == "inconclusive"  # all rungs passed, and that cannot be


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InterruptedByUser("interrupted")])
def test_evidence_is_saved_when_a_climb_is_cut_short(ready: Bed, error: BaseException) -> None:
    ready.world.broken["prove"] = error
    with pytest.raises(type(error)):
        _validate(ready)
    run = ready.runs()[-1]
    assert [row["rung"] for row in json.loads((run / "rungs.json").read_text())][-1] == "nested.boot"
    assert (run / "lab.json").exists()
    assert ready.lab().record().verdict == "confirmed"  # as it was before


@pytest.mark.parametrize(
    ("lost", "error", "said"),
    [
        (
            "tcg",
            DeadlineError("it did not boot in 600 s"),
            "no acceleration: timeout: it did not boot in 600 s",
        ),
        ("kvm", NestedFailedError("kvm: entry failed"), "nested KVM: failed: kvm: entry failed"),
    ],
)
def test_a_measurement_that_fails_costs_no_verdict(ready: Bed, lost: str, error: LabError, said: str) -> None:
    def time_boot(_self: object, _guest: object, acceleration: str, _deadline: object) -> float:
        if acceleration == lost:
            raise error
        return {"kvm": 6.0, "tcg": 60.0}[acceleration]

    ready.patch.setattr(FakeEmulator, "time_boot", time_boot)
    document, code = _validate(ready, compare=True)
    assert (document["verdict"], code) == ("confirmed", 0)
    found = document["facts"]["nested.compare"]
    assert (found["ratio"], found["n"], found["why"]) == (None, 0, said)
    assert sorted(map(bool, (found["with_kvm_seconds"], found["without_kvm_seconds"]))) == [False, True]
    assert said in (Path(document["evidence"]) / "report.md").read_text().replace("\\", "")


def test_an_interrupted_measurement_is_an_interruption(ready: Bed) -> None:
    ready.world.broken["compare"] = InterruptedByUser("interrupted")
    with pytest.raises(InterruptedByUser):
        _validate(ready, compare=True)
    assert len(json.loads((ready.runs()[-1] / "rungs.json").read_text())) == 13


def test_evidence_lists_runs_and_collects_one(ready: Bed) -> None:
    document = checked(evidence(ready.session(), "default", collect_now=True))
    assert [(row["verb"], row["verdict"]) for row in document["runs"]] == [
        ("up", "confirmed"),
        ("collect", None),
    ]
    assert {"dmesg.txt", "container.log", "settings.json"} <= set(document["runs"][-1]["files"])
    missing = (ready.runs()[-1] / "missing.txt").read_text()
    assert "image.json" in missing  # there is no real image: said, not hidden
    assert checked(evidence(ready.session(), "other"))["runs"] == []


def test_evidence_of_a_half_made_lab_is_what_there_is(bed: Bed) -> None:
    bed.session().store.place("default")
    document = checked(evidence(bed.session(), "default", collect_now=True))
    files = document["runs"][-1]["files"]
    assert {"host.json", "config.json", "missing.txt"} <= set(files)
    assert "lab.json" not in files


def test_a_container_whose_log_cannot_be_read_costs_nothing_else(
    ready: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LabError("Docker does not answer")

    monkeypatch.setattr("tests.unit.fakes.FakeEmulator.logs", broken)
    run = Path(_validate(ready)[0]["evidence"])
    assert (run / "canary-error.txt").read_text() == "Docker does not answer"
    assert (run / "dmesg.txt").exists()


def test_another_emulator_than_the_recorded_one_confirms_nothing(bed: Bed) -> None:
    bed.use(emulator=lambda *_: FakeEmulator(bed.world, "docker-android"))
    document = checked(up(bed.session(emulator="canary"), "default"))
    assert set(rungs(document).values()) == {"passed", "skipped"}, "L2 itself was well"
    assert document["cell"]["emulator"] == "docker-android"
    nesting = document["claims"]["nesting"]
    assert nesting["verdict"] == "inconclusive"
    assert nesting["reason"] == "the emulator asked for is canary, and the one that ran is docker-android"


def test_the_cell_names_the_image_that_ran_and_not_todays(ready: Bed) -> None:
    assert _validate(ready)[0]["cell"]["emulator_image"] == "sha256:fake"
    older = ContainerState(True, True, "healthy", None, "sha256:older", {"nonce": "of then"})
    ready.patch.setattr(FakeEmulator, "state", lambda _self, _guest: older)
    document, code = _validate(ready)
    assert (document["cell"]["emulator_image"], document["verdict"], code) == (
        "canary@sha256:older",
        "confirmed",
        0,
    )


def test_a_container_that_cannot_be_asked_about_costs_no_verdict(ready: Bed) -> None:
    def state(_self: object, _guest: object) -> ContainerState:
        raise LabError("Docker does not answer")

    ready.patch.setattr(FakeEmulator, "state", state)
    assert _validate(ready)[0]["cell"]["emulator_image"] == "sha256:fake"


def test_no_lab_no_verdict(bed: Bed) -> None:
    with pytest.raises(UsageError):
        _validate(bed)
    bed.session().store.place("default")
    with pytest.raises(UsageError, match="never finished"):
        _validate(bed)
    assert bed.world.calls == World().calls

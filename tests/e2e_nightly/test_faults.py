"""Every fault a night may meet, injected for real on the embedded engine: its right verdict, never a green.

Nesting switched off and a webhook that is down are faults of test_night.py. The tests of the first half
share one lab and run in the order of this file; each night has a state folder of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Answer, Lab, show
from tests.e2e_nightly import injecting, sabotage
from tests.e2e_nightly.injecting import inside, nonce, record

pytestmark = pytest.mark.timeout(1800)

NAME = "faults"
_NIGHTLY = "nightly"
"""The lab of a night."""
_JUMP = 7200
_LONG = 900.0
"""Seconds: no step here takes so long, and one that believed the wall clock would."""

_table: list[str] = []


@pytest.fixture(scope="module")
def faults(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that is confirmed: what is not, later, is a fault's doing. The table is printed at its end."""
    lab.json("lab.up", "--name", NAME)
    yield lab
    lab.run("lab.destroy", "--purge", "--name", NAME)
    show(request, _table)


@pytest.fixture
def state() -> Iterator[Path]:
    """In a short path: a unix socket's is limited."""
    with tempfile.TemporaryDirectory(prefix="lab-fault-") as folder:
        yield Path(folder)


def _tell(fault: str, status: int, verdict: str, reason: str) -> None:
    _table.append(f"{fault:<34} exit {status:>2}  {verdict:<13} {' '.join(reason.split())[:180]}")


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


def _judged(lab: Lab, fault: str, task: str = "lab.validate") -> dict[str, Any]:
    answer = lab.run(task, "--json", "--name", NAME)
    return _of(answer, fault)


def _of(answer: Answer, fault: str) -> dict[str, Any]:
    """A climb's document, told in the table; no claim of it is confirmed."""
    document = answer.document
    assert "claims" in document, answer.err
    _tell(fault, answer.status, document["verdict"], document["reason"])
    assert "confirmed" not in {claim["verdict"] for claim in document["claims"].values()}, document["claims"]
    assert answer.status not in (0, 1), answer.err
    return document | {"status": answer.status}


def _ends(document: dict[str, Any], verdict: str, code: int, rung: str, *words: str) -> None:
    """The verdict, its exit code, the rung that decides it, and what that says."""
    nesting = document["claims"]["nesting"]
    assert (nesting["verdict"], document["status"]) == (verdict, code), nesting
    assert nesting["reason"].startswith(rung), nesting
    for word in words:
        assert word in nesting["reason"], nesting["reason"]


# --- in the VM ---------------------------------------------------------------------------------------


def test_a_clock_that_is_wrong_in_the_vm_is_told_and_misleads_nothing(faults: Lab) -> None:
    """Not wrong with nesting, and not seen to jump: a night in which it does is below."""
    inside(faults, NAME, sabotage.SET_CLOCK.format(seconds=_JUMP))
    try:
        document = faults.json("lab.validate", "--name", NAME)
    finally:
        inside(faults, NAME, sabotage.SET_CLOCK.format(seconds=-_JUMP))
    boot = _rungs(document)["vm.boot"]
    _tell("VM's clock wrong all through a look", 0, document["verdict"], boot["observed"])
    assert document["facts"]["vm.boot"]["clock_ahead_seconds"] == pytest.approx(_JUMP, abs=60)
    assert "its clock +7" in boot["observed"]
    assert max(rung["seconds"] for rung in document["rungs"]) < _LONG
    assert document["facts"]["nested.boot"]["seconds"] < _LONG


def test_an_l2_whose_boot_is_not_completed(faults: Lab, tmp_path: Path) -> None:
    """The real L2, asked over ADB as ever, says 0."""
    said = "echo 0 >/run/props/sys.boot_completed; getprop sys.boot_completed"
    assert injecting.over_adb(faults, NAME, tmp_path / "adb", "sh", "-c", said) == "0"
    document = _judged(faults, "sys.boot_completed=0")
    _ends(document, "inconclusive", 12, "nested.adb", "sys.boot_completed is not 1")
    assert _rungs(document)["nested.boot"]["status"] == "passed"


def test_a_container_without_the_device(faults: Lab) -> None:
    _replace(faults, _image(faults))
    document = _judged(faults, "container without the device")
    # The canary in it says that there is no KVM: of a container that was given none, that is no evidence.
    _ends(document, "inconclusive", 12, "nested.boot", "was not given /dev/kvm")
    log = faults.run("lab.logs", "--source", "container", "--name", NAME).out
    assert "canary: failed (70): there is no /dev/kvm in this container" in log


def test_an_image_that_answers_adb_without_an_l2(faults: Lab, tmp_path: Path) -> None:
    image = _image(faults)
    script = (injecting.HERE / "impostor.sh").read_text()
    inside(faults, NAME, sabotage.IMPOSTOR.format(image=image, script=script))
    _replace(faults, image, "--device /dev/kvm")
    told = injecting.over_adb(faults, NAME, tmp_path / "adb", "getprop")
    for lie in (nonce(faults, NAME), "KVMKVMKVM", "kvm-clock"):
        assert lie in told, "it does answer as an L2 would"
    document = _judged(faults, "ADB answered without an L2")
    _ends(document, "inconclusive", 12, "nested.boot", "image is not lab's canary")


def _image(lab: Lab) -> str:
    """The name of the image that the canary's container was started from."""
    return inside(lab, NAME, "docker container inspect --format '{{.Config.Image}}' lab-canary")


def _replace(lab: Lab, image: str, more: str = "") -> None:
    known = record(lab, NAME)
    port = known["forwards"]["adb"]["guest_port"]
    words = {"uuid": known["uuid"], "nonce": nonce(lab, NAME), "port": port, "image": image, "more": more}
    inside(lab, NAME, sabotage.RUN.format(**words))


def test_a_disk_that_is_full_in_the_vm(faults: Lab) -> None:
    try:
        assert inside(faults, NAME, sabotage.FULL) == "0"
        document = _judged(faults, "disk full in the VM")
    finally:
        inside(faults, NAME, "rm -f /var/full /var/rest")
    _ends(document, "blocked", 11, "docker.engine", "the VM's disk is full")


def test_a_kvm_module_that_is_blocked(faults: Lab) -> None:
    inside(faults, NAME, sabotage.WITH_ONE_CPU.format(script=sabotage.BLOCK_MODULE))
    for task in ("lab.validate", "lab.up"):
        document = _judged(faults, f"KVM module blocked, {task}", task)
        _ends(document, "blocked", 11, "guest.kvm", "its kernel has not loaded kvm_")
        rungs = _rungs(document)
        assert rungs["guest.cpu"]["status"] == "passed", "the processor is not what is missing"
        assert rungs["nested.boot"]["status"] == "blocked"


def test_up_mends_what_was_broken_and_believes_no_impostor(faults: Lab, tmp_path: Path) -> None:
    inside(faults, NAME, sabotage.WITH_ONE_CPU.format(script=sabotage.LET_MODULE_IN))
    document = faults.json("lab.up", "--name", NAME)
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    told = injecting.over_adb(faults, NAME, tmp_path / "adb", "cat", "/proc/cmdline")
    assert f"lab.nonce={nonce(faults, NAME)}" in told, "a kernel of its own answers"


# --- under the VM ------------------------------------------------------------------------------------


def test_a_disk_that_is_full_under_the_evidence(faults: Lab) -> None:
    """All that was to be seen is well; but what cannot be written down was not seen."""
    with injecting.disk(faults.state / "evidence" / NAME, "64k"):
        answer = faults.run("lab.validate", "--json", "--name", NAME)
    error = answer.document.get("error", {})
    _tell("disk full under the evidence", answer.status, "none", error.get("what", answer.err[-200:]))
    assert answer.status == 11, answer.err
    assert f"the disk is full where {faults.state / 'evidence' / NAME}" in error["what"], error


def test_a_vm_that_is_killed_while_it_is_looked_at(faults: Lab) -> None:
    with injecting.running(faults, "lab.validate", "--name", NAME) as validation:
        validation.wait_for("docker.engine", NAME, "validate")
        injecting.kill_vm(faults, NAME)
        answer = validation.answer(_LONG)
    document = _of(answer, "VM killed during lab.validate")
    _ends(document, "inconclusive", 12, "docker.engine")
    status = faults.json("lab.status", "--name", NAME)
    assert status["lab"]["state"] == "stopped"


# --- nights ------------------------------------------------------------------------------------------


def _night(answer: Answer, fault: str) -> dict[str, Any]:
    """The night, told in the table; it is on record, and it is not green."""
    assert "night" in answer.document, answer.err
    found: dict[str, Any] = answer.document["night"]
    _tell(fault, answer.status, found["verdict"], found["reason"])
    assert (found["verdict"], answer.status, found["state"]) == ("inconclusive", 12, "ended"), found
    assert "confirmed" not in {claim["verdict"] for claim in found["claims"]}, found["claims"]
    return found


def _no_lab_is_left(night: Lab) -> None:
    assert night.json("lab.list")["labs"] == []
    assert not list((night.state / "labs").glob("*"))


def test_a_night_whose_vm_is_killed(lab: Lab, state: Path) -> None:
    with (
        injecting.elsewhere(lab, state, LAB_NIGHTLY__RUNS="1", LAB_NIGHTLY__COMPARE="false") as night,
        injecting.running(night, "nightly.run") as command,
    ):
        command.wait_for("vm.boot", _NIGHTLY, "up")
        injecting.kill_vm(night, _NIGHTLY)
        found = _night(command.answer(_LONG), "VM killed during nightly.run")
        assert "vm.boot" in found["reason"], found["reason"]
        assert night.json("nightly.history")["nights"] == [found]
        _no_lab_is_left(night)


def test_a_night_in_which_the_vms_clock_jumps(lab: Lab, state: Path) -> None:
    with (
        injecting.elsewhere(lab, state, LAB_NIGHTLY__RUNS="2", LAB_NIGHTLY__COMPARE="false") as night,
        injecting.running(night, "nightly.run") as command,
    ):
        command.wait_for("vm.boot", _NIGHTLY, "up", "finished")
        inside(night, _NIGHTLY, sabotage.SET_CLOCK.format(seconds=_JUMP))
        found = _night(command.answer(_LONG), "VM's clock jumps during nightly.run")
        assert found["reason"].startswith("the VM's clock moved by +7"), found["reason"]
        assert [run["verdict"] for run in found["runs"]] == ["confirmed", "confirmed"], found["runs"]
        took = [rung["seconds"] for run in found["runs"] for rung in run["rungs"]]
        took += [figure["value"] for run in found["runs"] for figure in run["figures"]]
        assert min(took) >= 0 and max(took) < _LONG, took
        _no_lab_is_left(night)


def test_a_night_whose_clock_jumps_and_whose_disk_is_full_in_the_end(
    lab: Lab, state: Path, tmp_path: Path
) -> None:
    """The first look is well by itself, the clock jumps in it; of the second there is nothing to show."""
    clock = injecting.clock(tmp_path)
    settings = {"LAB_NIGHTLY__RUNS": "2", "LAB_NIGHTLY__COMPARE": "false"}
    with (
        injecting.disk(state, "8g"),
        injecting.elsewhere(lab, state, **settings, **clock.env) as night,
    ):
        with injecting.running(night, "nightly.run") as command:
            command.wait_for("vm.boot", _NIGHTLY, "up")
            clock.jump(_JUMP)
            command.wait_for("nested.adb", _NIGHTLY, "validate", "finished")
            injecting.fill(state)
            answer = command.answer(_LONG)
        found = _night(answer, "clock jump during nightly.run")
        first, second = found["runs"]
        _tell("disk full during nightly.run", answer.status, second["verdict"], second["reason"])
        assert (first["verdict"], second["verdict"]) == ("confirmed", "blocked")
        assert f"the disk is full where {state}" in second["reason"], second
        (nesting,) = [one for one in found["claims"] if one["claim"] == "nesting"]
        assert nesting["counts"]["confirmed"] == 1, nesting
        # The jump leaves nothing settled, though what was looked at was well; no duration believes it.
        assert found["reason"].startswith("the wall clock moved by +7"), found["reason"]
        assert found["clock_jump"] == pytest.approx(_JUMP, abs=60)
        assert any("the wall clock moved by +7" in note for note in found["notes"]), found["notes"]
        took = [found["seconds"], *(rung["seconds"] for run in found["runs"] for rung in run["rungs"])]
        took += [figure["value"] for run in found["runs"] for figure in run["figures"]]
        assert min(took) >= 0 and max(took) < _LONG, took
        assert night.json("nightly.history")["nights"][0]["verdict"] == "inconclusive"
        _no_lab_is_left(night)


def test_a_night_that_cannot_be_written_down_is_no_success(lab: Lab, state: Path) -> None:
    with injecting.disk(state, "32k"), injecting.elsewhere(lab, state) as night:
        answer = night.run("nightly.run", "--json")
        error = answer.document.get("error", {})
        _tell("disk full before nightly.run", answer.status, "none", error.get("what", answer.err[-200:]))
        assert answer.status == 11, answer.err
        assert f"the disk is full where {state}" in error["what"] and "LAB_STATE_DIR" in error["hint"], error
        assert not list((state / "labs").glob("*")) and not list(state.glob("evidence/*/*-up"))

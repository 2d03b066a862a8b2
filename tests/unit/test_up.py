"""lab.up: it converges, changes nothing that is right, and never says confirmed of what is not."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.core import deadline, files
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError, UsageError
from lab.core.steps import Event
from lab.engines.protocol import HELD, Availability, EngineFacts, State
from lab.host.facts import Mac
from lab.tasks.lab.up import up
from lab.workflow.session import Session
from tests.unit import fakes, probed
from tests.unit.bed import Bed, Published, checked, host, rungs
from tests.unit.fakes import TCG, FakeEmulator


def _up(bed: Bed, fresh: bool = False, **flags: Any) -> tuple[dict[str, Any], int]:
    reply = up(bed.session(**flags), "default", fresh)
    return checked(reply), reply.code


def test_from_nothing_to_confirmed(bed: Bed) -> None:
    document, code = _up(bed)
    assert (document["verdict"], code) == ("confirmed", 0)
    assert document["facts"]["nested.adb"]["boot_id"] == "boot-of-l2-1"
    assert document["access"]["adb"]["address"].startswith("127.0.0.1:")
    done = [call for call in bed.world.calls if call not in ("booted", "prove")]
    assert sorted(done) == sorted(["prepare", "create", "start", "docker", "upload", "load", "launch"])
    (run,) = bed.runs()
    assert {"validation.json", "console.log", "container.log", "steps.jsonl"} <= {
        file.name for file in run.iterdir()
    }
    nonce = bed.main().nonce
    assert len(nonce) == 32
    assert nonce not in (run / "lab.json").read_text()


def test_what_makes_an_l2_believed_is_in_no_evidence(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def logs(self: FakeEmulator, guest: Any) -> dict[str, str]:
        return {"container-inspect.json": json.dumps({"io.lab.nonce": bed.main().nonce})}

    monkeypatch.setattr(FakeEmulator, "logs", logs)
    _up(bed)
    (run,) = bed.runs()
    assert "[redacted]" in (run / "container-inspect.json").read_text()
    nonce = bed.main().nonce
    assert [file.name for file in run.iterdir() if nonce in file.read_text(errors="replace")] == []


def test_a_ready_lab_is_left_alone(bed: Bed) -> None:
    first, _ = _up(bed)
    record = bed.lab().record()
    with bed.untouched():
        assert _up(bed) == (first, 0)
    assert bed.lab().record() == record
    assert bed.world.calls[-1] == "prove"  # L2 itself was asked
    assert len(bed.runs()) == 1


def _another_l2(bed: Bed) -> None:
    assert bed.world.l2
    bed.world.l2.boot_id = "boot-of-l2-again"


def _l2_forgot(bed: Bed) -> None:
    assert bed.world.l2
    bed.world.l2.nonce = "of another lab"


def _l2_lost_kvm(bed: Bed) -> None:
    assert bed.world.l2
    bed.world.l2.hypervisor = TCG


def _l2_died(bed: Bed) -> None:
    bed.world.l2 = None


def _an_impostor_that_knows_all_l2_would_say(bed: Bed) -> None:
    bed.world.impostor = True


def _halted(bed: Bed) -> None:
    bed.world.state, bed.world.l2 = State.STOPPED, None


def _suspended(bed: Bed) -> None:
    bed.world.state = State.SUSPENDED


def _lost(bed: Bed) -> None:
    bed.world.state, bed.world.l2 = State.ABSENT, None


def _was_refuted(bed: Bed) -> None:
    last = bed.lab().folder / "last-up.json"
    last.write_text(json.dumps(json.loads(last.read_text()) | {"verdict": "refuted"}))


def _by_another_version(bed: Bed) -> None:
    """Its rules may have been others: what it confirmed is looked at anew."""
    last = bed.lab().folder / "last-up.json"
    last.write_text(json.dumps(json.loads(last.read_text()) | {"lab_version": "0.0.1"}))


def _of_another_lab(bed: Bed) -> None:
    last = bed.lab().folder / "last-up.json"
    found = json.loads(last.read_text())
    found["lab"]["uuid"] = "0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11"
    last.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("happened", "done", "verdict"),
    [
        (_another_l2, set(), "confirmed"),
        (_l2_forgot, {"launch"}, "confirmed"),
        (_l2_lost_kvm, set(), "refuted"),
        (_l2_died, {"launch"}, "confirmed"),
        (_an_impostor_that_knows_all_l2_would_say, {"launch"}, "confirmed"),
        (_halted, {"create", "start", "launch"}, "confirmed"),
        (_suspended, {"resume", "date"}, "confirmed"),
        (_lost, {"create", "start", "launch"}, "confirmed"),
        (_was_refuted, set(), "confirmed"),
        (_of_another_lab, set(), "confirmed"),
        (_by_another_version, set(), "confirmed"),
    ],
)
def test_a_lab_that_changed_is_climbed_anew(
    bed: Bed, happened: Callable[[Bed], None], done: set[str], verdict: str
) -> None:
    _up(bed)
    happened(bed)
    before = len(bed.world.calls)
    document, code = _up(bed)
    assert len(bed.runs()) == 2
    assert (document["verdict"], code) == (verdict, {"confirmed": 0, "refuted": 10}[verdict])
    always = {"prepare", "upload", "load", "docker", "booted", "prove"}
    assert set(bed.world.calls[before:]) - always == done


def _android_hangs(bed: Bed) -> None:
    bed.world.health = replace(fakes.HEALTHY, usable=False)


def _l1_is_deaf(bed: Bed) -> None:
    bed.world.broken["health"] = DeadlineError("the VM does not answer over SSH")


@pytest.mark.parametrize("happened", [_android_hangs, _l1_is_deaf])
def test_an_android_that_was_usable_is_asked_again(bed: Bed, happened: Callable[[Bed], None]) -> None:
    first, code = _up(bed, emulator="docker-android")
    assert (first["claim"], first["verdict"], code) == ("android", "confirmed", 0)
    with bed.untouched("health"):
        assert _up(bed) == (first, 0)
    assert bed.world.calls[-1] == "health"
    happened(bed)
    document, code = _up(bed)
    assert len(bed.runs()) == 2
    assert (document["claim"], document["verdict"], code) == ("android", "inconclusive", 12)
    assert rungs(document)["nested.adb"] == "passed"


def test_an_engine_that_cannot_tell_any_more_is_an_answer(bed: Bed) -> None:
    _up(bed)
    bed.world.broken["status"] = LabError("the engine does not answer")
    document, code = _up(bed)
    assert (document["verdict"], code) == ("inconclusive", 12)
    assert "does not answer" in document["reason"]


def test_an_l2_under_emulation_refutes(bed: Bed) -> None:
    bed.world.l2_next = TCG
    document, code = _up(bed)
    assert (document["verdict"], code) == ("refuted", 10)
    assert rungs(document)["nested.boot"] == "failed"
    assert "nested.boot" not in document["facts"]  # no seconds "under KVM" of what had none


def test_kvm_that_does_not_run_a_guest_refutes_before_any_l2(bed: Bed) -> None:
    bed.world.kvm_ok = False
    document, code = _up(bed)
    assert (document["verdict"], code, rungs(document)["guest.kvm"]) == ("refuted", 10, "failed")
    assert "launch" not in bed.world.calls


def test_silence_is_inconclusive_and_leaves_an_answer_for_the_shell(bed: Bed) -> None:
    bed.world.broken["prove"] = DeadlineError("ADB did not answer in 120 s")
    document, code = _up(bed)
    assert (document["verdict"], code) == ("inconclusive", 12)
    assert document["access"]["ssh"]["command"].startswith("ssh ")


def test_on_an_emulated_processor_the_cell_says_so(bed: Bed) -> None:
    bed.world.facts = EngineFacts("qemu", "7.2", "tcg", "emulated", "fake")
    document, _ = _up(bed)
    assert document["cell"]["emulated"] is True
    assert document["claims"]["android"]["verdict"] == "blocked"


def test_in_an_emulated_pc_the_cell_says_so_and_the_page_is_left_to_the_machine_outside(bed: Bed) -> None:
    document, code = _up(bed, rehearsal={"pc": "Bochs 2.7, corei7_haswell_4770"})
    assert document["cell"]["host"]["pc"] == "Bochs 2.7, corei7_haswell_4770"
    assert (document["cell"]["emulated"], document["verdict"], code) == (True, "confirmed", 0)
    assert document["claims"]["android"]["verdict"] == "blocked"
    assert document["claims"]["theory"]["verdict"] == "not applicable"
    (run,) = bed.runs()
    assert (run / "validation.json").is_file() and not list(run.glob("report.*"))


def test_an_interrupted_climb_saves_its_evidence(bed: Bed) -> None:
    bed.world.broken["launch"] = InterruptedByUser("interrupted")
    with pytest.raises(InterruptedByUser):
        _up(bed)
    (run,) = bed.runs()
    kept = json.loads((run / "rungs.json").read_text())
    assert [row["rung"] for row in kept][-1] == "container.kvm"
    assert {"lab.json", "console.log"} <= {file.name for file in run.iterdir()}
    assert not (run / "validation.json").exists()
    del bed.world.broken["launch"]
    deadline.cancelled.clear()  # the command ended; the next one is a new process
    assert _up(bed)[0]["verdict"] == "confirmed"


@pytest.mark.parametrize(("flag", "value"), [("image", "ubuntu-24.04"), ("emulator", "none")])
def test_a_flag_that_the_lab_is_not_is_refused(bed: Bed, flag: str, value: str) -> None:
    _up(bed, image="debian-13", emulator="canary")
    with bed.untouched(), pytest.raises(UsageError) as caught:
        up(bed.session(**{flag: value}), "default")
    assert "--fresh" in caught.value.hint
    up(bed.session(**{flag: value}), "default", fresh=True)  # and that does it
    assert "destroy" in bed.world.calls


def test_what_a_file_says_is_for_new_labs_only(bed: Bed) -> None:
    _up(bed)
    session = bed.session(emulator="none")
    session.settings.with_origins({"emulator.kind": "lab.toml"})
    with bed.untouched():
        assert up(session, "default").code == 0


def test_fresh_is_another_lab(bed: Bed) -> None:
    _up(bed)
    before, nonce = bed.lab().record(), bed.main().nonce
    document, code = _up(bed, fresh=True)
    assert code == 0
    assert document["lab"]["uuid"] != before.uuid
    assert bed.main().nonce != nonce


def _too_small(bed: Bed) -> Session:
    return bed.session(image="debian-13", vm={"disk_gib": 5})


def _no_room(bed: Bed) -> Session:
    session = bed.session(emulator={"kind": "docker-android"}, vm={"memory_mib": 600})
    return replace(session, settings=session.settings.with_origins({"vm.memory_mib": "lab.toml"}))


def _no_image(bed: Bed) -> Session:
    return bed.session(emulator={"kind": "docker-android", "image": "Not An Image"})


def _no_mirror(bed: Bed) -> Session:
    return bed.session(emulator={"kind": "docker-android", "registry": "https://mirror"})


REFUSED = pytest.mark.parametrize("refused", [_too_small, _no_room, _no_image, _no_mirror])


@REFUSED
def test_settings_that_are_refused_make_no_lab(bed: Bed, refused: Callable[[Bed], Session]) -> None:
    with pytest.raises(UsageError):
        up(refused(bed), "default")
    assert bed.session().store.labs() == [] and bed.world.calls == []
    assert not bed.session().store.evidence_folder.exists()


@REFUSED
def test_settings_that_are_refused_cost_no_lab_that_is_there(
    bed: Bed, refused: Callable[[Bed], Session]
) -> None:
    _up(bed)
    before = bed.lab().record()
    with bed.untouched(), pytest.raises(UsageError):
        up(refused(bed), "default", fresh=True)
    assert bed.lab().record() == before and bed.world.state is State.RUNNING


@pytest.mark.parametrize("lacking", ["engine", "consent", "memory", "port", "image", "packages"])
def test_fresh_destroys_nothing_where_a_new_lab_could_not_be_made(
    bed: Bed, taken: int, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    _up(bed)
    before, session = bed.lab().record(), bed.session()

    def absent(*_: object, **_more: object) -> None:
        raise BlockedError("qemu is not installed")

    if lacking == "engine":
        bed.world.available = Availability(False, "the host has no virtualization", "another host")
    elif lacking == "consent":
        bed.world.caution = "It can hang this host."
    elif lacking == "memory":
        bed.use(host=lambda: host(memory=1 << 20))
        session = bed.session(vm={"memory_mib": before.memory_mib + 100})
    elif lacking == "port":
        session = bed.session(ports={"ssh": taken})
    elif lacking == "image":
        bed.use(published=Published("its name does not resolve"))
        session = bed.session(image="ubuntu-24.04")
    else:
        bed.use(install=absent)
        session = bed.session()
    with bed.untouched(), pytest.raises(BlockedError):
        up(session, "default", fresh=True)
    assert bed.lab().record() == before and bed.world.state is State.RUNNING


@pytest.mark.parametrize("state", [State.RUNNING, *sorted(HELD)])
def test_what_the_old_lab_gives_back_is_free_for_the_new_one(bed: Bed, state: State) -> None:
    """Its memory, while it runs or stands still, and the ports it holds."""
    _up(bed)
    bed.world.state = state
    before = bed.lab().record()
    port = before.forwards["ssh"].host_port
    mib = before.memory_mib
    bed.use(host=lambda: host(memory=(1 if bed.world.state is state else mib) << 20))
    with socket.create_server(("127.0.0.1", port)) as holding:
        bed.patch.setattr(fakes.FakeMachine, "destroy", lambda self: (_gone(self), holding.close()))
        document, code = _up(bed, fresh=True, ports={"ssh": port})
    assert code == 0 and document["lab"]["uuid"] != before.uuid


def _gone(machine: fakes.FakeMachine) -> None:
    machine.world.did("destroy")
    machine.world.state = State.ABSENT


def test_what_sudo_left_in_the_way_of_a_rung_blocks_it_and_is_no_fault_of_labs(bed: Bed) -> None:
    file = bed.folder / "state" / "labs" / "default" / "vm"
    for _ in range(2):  # what is done for a rung may be done again
        bed.world.broken["create"] = PermissionError(errno.EACCES, "Permission denied", str(file))
        document, code = _up(bed)
        (row,) = [row for row in document["rungs"] if row["rung"] == "vm.settings"]
        assert (row["status"], code) == ("blocked", 11)
        assert str(file) in row["observed"] and "mends it" in row["hint"]
    bed.world.broken.clear()
    assert _up(bed)[1] == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "5", '{"verdict": "confirmed"}', "rungs", "uuid"])
def test_a_torn_memory_of_the_last_up_only_costs_a_climb(bed: Bed, content: str) -> None:
    _up(bed)
    last = bed.lab().folder / "last-up.json"
    if content in ("rungs", "uuid"):
        known = json.loads(last.read_text())
        content = json.dumps(
            known | {"rungs": [5], "facts": {}} if content == "rungs" else known | {"lab": {}}
        )
    last.write_text(content)
    document, code = _up(bed)
    assert (document["verdict"], code) == ("confirmed", 0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_fixed_port_that_is_taken_blocks_before_anything_is_made(bed: Bed, taken: int) -> None:
    with pytest.raises(BlockedError, match=str(taken)):
        _up(bed, ports={"ssh": taken})
    assert bed.session().store.labs() == []
    assert bed.world.calls == []


def test_a_fixed_port_that_is_taken_blocks_an_old_lab_too(bed: Bed, taken: int) -> None:
    _up(bed)
    _halted(bed)
    document, code = _up(bed, ports={"adb": taken})
    assert (document["verdict"], code, rungs(document)["vm.settings"]) == ("blocked", 11, "blocked")
    assert document["access"] is None
    assert bed.world.state is State.STOPPED


def test_too_little_memory_blocks_before_the_start(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.use(host=lambda: host(memory=1 << 28))
    document, code = _up(bed)
    assert (code, rungs(document)["vm.settings"]) == (11, "blocked")
    assert "start" not in bed.world.calls


@pytest.mark.parametrize(("total_gib", "starts"), [(16, True), (5, False)])
def test_a_mac_is_judged_by_its_whole_memory(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, total_gib: int, starts: bool
) -> None:
    """What macOS calls available leaves out what it gives back: on a Mac in use, it is a few hundred MiB."""
    mac = replace(
        host(memory=1 << 28), os="macOS", memory_total=total_gib << 30, mac=Mac("MacBookPro16,1", False)
    )
    bed.use(host=lambda: mac)
    session = bed.session()
    heard: list[Event] = []
    session.steps.subscribe(heard.append)
    document = checked(up(session, "default"))
    told = next(row["observed"] for row in document["rungs"] if row["rung"] == "vm.settings")
    assert ("start" in bed.world.calls) is starts
    if starts:
        assert any("256 MiB is available at once: macOS frees more" in event.text for event in heard)
    else:
        assert rungs(document)["vm.settings"] == "blocked" and "this Mac has 5120 MiB" in told


def test_too_little_disk_blocks_before_the_start(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.use(require_space=lambda folder, _bytes, purpose: files.require_space(folder, 1 << 60, purpose))
    document, code = _up(bed)
    assert (code, rungs(document)["vm.settings"]) == (11, "blocked")
    assert "GiB" in next(row["observed"] for row in document["rungs"] if row["rung"] == "vm.settings")
    assert "start" not in bed.world.calls
    bed.use(require_space=lambda *_: None)
    assert _up(bed)[1] == 0


def test_a_nested_start_that_nobody_agreed_to_blocks(bed: Bed) -> None:
    bed.world.caution = "It can hang this host."
    document, code = _up(bed)
    assert (code, rungs(document)["vm.settings"]) == (11, "blocked")
    assert "start" not in bed.world.calls
    assert _up(bed, virtualbox={"allow_nested_on_host": True})[1] == 0


def test_without_an_emulator_all_that_was_asked_for_is_done(bed: Bed) -> None:
    document, code = _up(bed, emulator="none")
    assert code == 0
    assert document["verdict"] != "confirmed"
    assert {rungs(document)[name] for name in ("nested.boot", "nested.adb")} == {"skipped"}
    assert "launch" not in bed.world.calls
    bed.world.kvm_ok = False
    assert _up(bed, emulator="none")[1] == 10


def test_an_image_that_cannot_be_had_blocks(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise BlockedError("no image")

    bed.use(guest_image=none)
    document, code = _up(bed)
    assert (code, rungs(document)["host.engine"], document["access"]) == (11, "blocked", None)


def test_an_answer_while_the_vm_is_off_is_not_believed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _up(bed)
    old = FakeEmulator(bed.world).prove("", bed.folder, deadline.Deadline.after(1))
    monkeypatch.setattr(FakeEmulator, "prove", lambda *_: old)  # as it was confirmed, from who knows where
    _halted(bed)
    document, _ = _up(bed)
    assert bed.world.calls.count("start") == 2
    assert document["verdict"] == "inconclusive"  # it is not the L2 launched now


def test_a_setting_that_virtualbox_accepts_and_does_not_deliver_refutes(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction for macOS since 7.0: nesting set, and read back so; no vmx in the guest."""
    bed.world.facts = EngineFacts("virtualbox", "7.2.22", "native", "hardware", "Hypervisor.framework")
    mac = replace(host("Intel Core i7"), os="macOS", os_version="15.1", mac=Mac("MacBookPro16,1", False))
    bed.use(host=lambda: mac)
    seen = probed.cpu_facts()
    seen["cpu"] |= {"flags": ["hypervisor"], "nested_paging": None}
    monkeypatch.setattr(fakes, "cpu_facts", lambda: seen)
    document, code = _up(bed, engine="virtualbox")
    outcomes = rungs(document)
    assert (outcomes["vm.settings"], outcomes["guest.cpu"]) == ("passed", "failed")
    assert document["facts"]["vm.settings"]["nested"] == "on"
    assert (document["claims"]["nesting"]["verdict"], code) == ("refuted", 10)
    assert document["claims"]["theory"]["verdict"] != "confirmed"
    assert document["cell"]["acceleration"] == "native" and document["cell"]["host"]["system"] == "macos"
    assert "launch" not in bed.world.calls


def test_the_engine_that_really_ran_is_the_cells(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.world.facts = EngineFacts("virtualbox", "7.2.22", "hwvirt", "hardware", "expected")
    settings = fakes.FakeMachine.settings
    ran = {"acceleration": "interpreter"}
    monkeypatch.setattr(fakes.FakeMachine, "settings", lambda self: settings(self) | ran)
    document, _ = _up(bed)
    assert document["cell"]["acceleration"] == "interpreter" and document["cell"]["emulated"]

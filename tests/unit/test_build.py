"""Building: each part only as far as it is missing, and no failed launch of L2 hidden."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Background
from lab.emulators.protocol import NestedFailedError, NestedProof
from lab.engines.protocol import Availability, EngineFacts, Forward, PortTakenError, State
from lab.guest import seed
from lab.model.domain import Outcome
from lab.tasks.lab.up import up
from lab.workflow import guest_image
from lab.workflow.build import Builder
from lab.workflow.workbench import Workbench
from tests.unit.bed import Bed, checked, rungs
from tests.unit.fakes import FakeEmulator, FakeMachine


def _up(bed: Bed) -> tuple[dict[str, Any], int]:
    reply = up(bed.session(), "default")
    return checked(reply), reply.code


def _fails(bed: Bed, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The first `times` launches of L2 fall."""
    booted = FakeEmulator.booted

    def falls(self: FakeEmulator, guest: Any, until: Deadline) -> NestedProof:
        if bed.world.l2_boots <= times:
            raise NestedFailedError(f"launch {bed.world.l2_boots} fell", tail="KVM: entry failed")
        return booted(self, guest, until)

    monkeypatch.setattr(FakeEmulator, "booted", falls)


def test_a_launch_that_fell_is_tried_again_and_told(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _fails(bed, monkeypatch, 2)
    document, code = _up(bed)
    assert (document["verdict"], code) == ("confirmed", 0)
    assert bed.world.calls.count("launch") == 3
    assert document["facts"]["nested.launches"] == {"failed": ["launch 1 fell", "launch 2 fell"]}
    told = next(row["observed"] for row in document["rungs"] if row["rung"] == "nested.boot")
    assert "2 launches failed: launch 2 fell" in told


def test_three_launches_that_fell_refute(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _fails(bed, monkeypatch, 99)
    document, code = _up(bed)
    assert (document["verdict"], code, rungs(document)["nested.boot"]) == ("refuted", 10, "failed")
    assert bed.world.calls.count("launch") == 3
    assert len(bed.main().failed_launches) == 3


def test_every_launch_has_a_nonce_of_its_own(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    nonces: list[str] = []
    start = FakeEmulator.start

    def noted(self: FakeEmulator, guest: Any, step: Any, *, nonce: str) -> None:
        assert bed.main().nonce == nonce  # known before L2 is: a kill in between loses nothing
        nonces.append(nonce)
        start(self, guest, step, nonce=nonce)

    monkeypatch.setattr(FakeEmulator, "start", noted)
    _fails(bed, monkeypatch, 2)
    _up(bed)
    assert len(set(nonces)) == 3


def test_silence_of_a_launch_is_not_a_failed_launch(bed: Bed) -> None:
    bed.world.broken["booted"] = DeadlineError("nothing was heard")
    document, code = _up(bed)
    assert (code, rungs(document)["nested.boot"]) == (12, "inconclusive")
    assert bed.world.calls.count("launch") == 1
    assert bed.main().failed_launches == []


@pytest.mark.parametrize(
    ("call", "rung"),
    [
        ("create", "vm.settings"),
        ("start", "vm.settings"),
        ("docker", "docker.engine"),
        ("load", "nested.boot"),
    ],
)
def test_what_could_not_be_built_settles_nothing_and_is_built_next_time(
    bed: Bed, call: str, rung: str
) -> None:
    bed.world.broken[call] = OSError("it broke")
    document, code = _up(bed)
    assert (document["verdict"], code, rungs(document)[rung]) == ("inconclusive", 12, "inconclusive")
    bed.world.broken.clear()
    assert _up(bed)[0]["verdict"] == "confirmed"


def test_an_emulator_that_cannot_be_had_blocks_its_own_rung_alone(bed: Bed) -> None:
    """What the engine, the VM and Docker can do is found out all the same."""
    bed.world.broken["prepare"] = BlockedError("its registry cannot be reached")
    document, code = _up(bed)
    found = rungs(document)
    assert (code, found["nested.boot"]) == (11, "blocked")
    for rung in ("host.engine", "vm.boot", "guest.kvm", "docker.engine", "container.kvm"):
        assert found[rung] == "passed", rung


def test_gigabytes_are_fetched_once_kvm_is_seen_to_work(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    saw = Builder.saw

    def noted(self: Builder, outcome: Outcome) -> None:
        looked.append(outcome.rung)
        assert outcome.rung == "guest.kvm" or "guest.kvm" in looked or "prepare" not in bed.world.calls
        saw(self, outcome)

    monkeypatch.setattr(Builder, "saw", noted)
    bed.world.to_be_fetched = True
    assert _up(bed)[1] == 0
    assert bed.world.calls.count("prepare") == 1 and "nested.boot" in looked


def test_no_gigabytes_are_fetched_for_a_vm_without_kvm(bed: Bed) -> None:
    bed.world.to_be_fetched, bed.world.kvm_ok = True, False
    document, code = _up(bed)
    assert (document["verdict"], code) == ("refuted", 10)
    assert "prepare" not in bed.world.calls


def test_docker_is_looked_at_while_gigabytes_are_fetched(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_seen = threading.Event()
    saw, prepare = Builder.saw, FakeEmulator.prepare

    def noted(self: Builder, outcome: Outcome) -> None:
        saw(self, outcome)
        if outcome.rung == "container.kvm":
            docker_seen.set()

    def slowly(self: FakeEmulator, step: Any) -> None:
        assert docker_seen.wait(20), "Docker waits for the download"
        prepare(self, step)

    monkeypatch.setattr(Builder, "saw", noted)
    monkeypatch.setattr(FakeEmulator, "prepare", slowly)
    bed.world.to_be_fetched = True
    assert _up(bed)[1] == 0


def test_a_paused_machine_keeps_its_ports(bed: Bed) -> None:
    _up(bed)
    before = bed.lab().record().forwards
    bed.world.state = State.PAUSED
    assert _up(bed)[1] == 0
    assert bed.lab().record().forwards == before
    assert bed.world.calls.count("start") == 1


def test_a_lost_race_for_a_port_is_run_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[Forward]] = []
    start = FakeMachine.start

    def refused_once(self: FakeMachine, forwards: Any) -> None:
        tried.append(list(forwards))
        if len(tried) == 1:
            raise PortTakenError("a host port is taken", [forwards[0].host_port])
        start(self, forwards)

    monkeypatch.setattr(FakeMachine, "start", refused_once)
    assert _up(bed)[1] == 0
    assert {(item.name, item.guest_port) for item in tried[-1]} == {("ssh", 22), ("adb", 5555)}
    assert len(tried) == 2


@pytest.mark.parametrize(("image", "left"), [("ubuntu-24.04-fake", 0), ("debian-13-fake", 2)])
def test_an_image_not_of_labs_own_sets_itself_up_first(bed: Bed, image: str, left: int) -> None:
    _up(bed)
    bed.lab().change(image=image)
    bed.world.boot_states = ["starting", "running"]
    with Background() as background:
        Builder(Workbench.open(bed.session(), "default"), background)._inside()
    assert len(bed.world.boot_states) == left


@pytest.mark.parametrize(
    ("image", "gib", "grows", "holds"),
    [
        ("debian-13-fake", 12, False, False),
        ("debian-13-fake", 32, True, False),
        ("ubuntu-24.04-fake", 12, True, True),
        ("debian-13-generic-fake", 4, True, True),
    ],
)
def test_a_published_image_gets_what_labs_own_has(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, image: str, gib: int, grows: bool, holds: bool
) -> None:
    """The room that its VM's disk has, which is larger than what was published; and the idle KVM guest."""
    bed.use(guest_image=lambda *_: (image, "cached"))
    up(bed.session(vm={"disk_gib": gib}), "default")
    made = seed.read(Workbench.open(bed.session(), "default").spec.seed)["user-data"]
    config = json.loads(made.removeprefix(b"#cloud-config"))
    assert (config["growpart"]["mode"], config["resize_rootfs"]) == ("auto" if grows else "off", grows)
    unit = "lab-hold-kvm.service"
    assert [row["path"] for row in config.get("write_files", [])] == [f"/etc/systemd/system/{unit}"] * holds
    assert config.get("runcmd", []) == [["systemctl", "enable", "--now", unit]] * holds


def test_the_image_is_chosen_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _up(bed)
    bed.use(guest_image=lambda *_: ("debian-13-other", "newer"))
    bed.world.state = State.STOPPED
    document, _ = _up(bed)
    assert document["cell"]["image"] == "debian-13-fake"


@pytest.mark.parametrize(
    ("emulator", "engine", "waited"),
    [("docker-android", "kvm", 900.0), ("docker-android", "tcg", 1800.0), ("canary", "tcg", 900.0)],
)
def test_android_is_waited_for_as_long_as_it_may_take(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, emulator: str, engine: str, waited: float
) -> None:
    """Built as it is looked at: an emulated processor gives it half an hour, not L2's quarter."""
    bed.world.facts = EngineFacts(
        "qemu", "7.2", engine, "hardware" if engine == "kvm" else "emulated", "fake"
    )
    given: list[float] = []
    booted = FakeEmulator.booted

    def noted(self: FakeEmulator, guest: Any, until: Deadline) -> NestedProof:
        given.append(until.seconds)
        return booted(self, guest, until)

    monkeypatch.setattr(FakeEmulator, "booted", noted)
    up(bed.session(emulator=emulator), "default")
    assert given == [waited, waited]  # by the building, and by the rung


def test_no_image_is_fetched_for_a_virtualbox_that_cannot_be_used(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Apple silicon that would be half a gigabyte for nothing."""
    fetched: list[str] = []
    monkeypatch.setattr(
        guest_image,
        "guest_image",
        lambda _session, record: fetched.append(record.engine) or ("image-1", "cached"),
    )
    bed.world.available = Availability(False, "VirtualBox runs no x86 VM on Apple silicon", "")
    reply = up(bed.session(engine="virtualbox"), "default")
    row = next(row for row in checked(reply)["rungs"] if row["rung"] == "host.engine")
    assert (row["status"], reply.code) == ("blocked", 11)
    assert "Apple silicon" in row["observed"]
    assert fetched == []

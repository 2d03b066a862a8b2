"""What was cut short, or changed behind lab's back: commands go on from there, and it makes no verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from lab.core import deadline
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, UsageError
from lab.emulators.protocol import NestedFailedError, NestedProof
from lab.engines.protocol import Availability, EngineFacts, State
from lab.records import labs
from lab.tasks.image.prune import prune
from lab.tasks.lab import power, snapshots, status
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow.build import Builder
from lab.workflow.destroy import destroy
from tests.unit import fakes, probed
from tests.unit.bed import Bed, checked, rungs
from tests.unit.fakes import FakeEmulator, FakeGuest, FakeMachine

NAME = "default"


def _up(bed: Bed, **flags: Any) -> tuple[dict[str, Any], int]:
    reply = up(bed.session(**flags), NAME)
    return checked(reply), int(reply.code)


def _raising(error: BaseException) -> Any:
    def work(*_: object) -> NoReturn:
        raise error

    return work


def _launched_early(bed: Bed, monkeypatch: pytest.MonkeyPatch, falls: int) -> None:
    """L2 is launched before docker.engine is looked at, and the first `falls` launches end at once."""
    launched = threading.Event()
    start, install, booted = FakeEmulator.start, Builder._docker, FakeEmulator.booted

    def starting(self: FakeEmulator, guest: Any, step: Any, *, nonce: str) -> None:
        start(self, guest, step, nonce=nonce)
        if bed.world.l2_boots <= falls:
            bed.world.l2 = None
        launched.set()

    def waiting(self: Builder) -> None:
        install(self)
        assert launched.wait(5)

    def told(self: FakeEmulator, guest: Any, until: Deadline) -> NestedProof:
        if bed.world.l2 is None:
            raise NestedFailedError(f"launch {bed.world.l2_boots} fell", tail="KVM: entry failed")
        return booted(self, guest, until)

    monkeypatch.setattr(FakeEmulator, "start", starting)
    monkeypatch.setattr(FakeEmulator, "booted", told)
    monkeypatch.setattr(Builder, "_docker", waiting)


def test_an_early_launch_that_fell_is_told(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _launched_early(bed, monkeypatch, 1)
    document, code = _up(bed)
    assert (document["verdict"], code) == ("confirmed", 0)
    assert document["facts"]["nested.launches"] == {"failed": ["launch 1 fell"]}


def test_an_early_launch_is_one_of_three(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _launched_early(bed, monkeypatch, 99)
    document, code = _up(bed)
    assert (document["verdict"], code) == ("refuted", 10)
    assert bed.world.calls.count("launch") == 3


def test_up_does_not_confirm_from_memory_what_was_refuted_since(bed: Bed) -> None:
    _up(bed)
    bed.world.kvm_ok = False
    assert checked(validate(bed.session(), NAME))["verdict"] == "refuted"
    assert _up(bed)[1] == 10


def test_a_ready_labs_access_is_todays(bed: Bed) -> None:
    _up(bed)
    adb = bed.lab().record().forwards["adb"].model_dump()
    bed.lab().change(forwards={"ssh": {"host_port": 10099, "guest_port": 22}, "adb": adb})
    assert _up(bed)[0]["access"]["ssh"]["port"] == 10099


def test_a_container_probe_that_took_too_long_refutes_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "KVM_RUN did not end in 20 s (killed; 19.8 s of them on the processor)"
    killed = probed.kvm_entry(False, started=True, failure="timeout", error=why)
    slow = json.dumps(probed.kvm_probe(real_mode=killed))
    answer = FakeGuest._answer

    def answering(self: FakeGuest, argv: list[str], stdin: str | bytes) -> str:
        if argv[:2] == ["docker", "run"] and "--device" in argv:
            return f"{self.word}\n{slow}"
        return answer(self, argv, stdin)

    monkeypatch.setattr(FakeGuest, "_answer", answering)
    document, code = _up(bed)
    assert (document["verdict"], code, rungs(document)["container.kvm"]) == (
        "inconclusive",
        12,
        "inconclusive",
    )


def test_a_device_that_labs_user_may_not_open_refutes_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = probed.kvm_probe(False, real_mode=None, long_mode=None)
    denied["device"] |= {
        "opened": False,
        "api_version": None,
        "failure": "permission",
        "error": "/dev/kvm: Permission denied",
    }
    monkeypatch.setattr(fakes, "kvm_probe", lambda _ok: denied)
    document, code = _up(bed)
    assert (document["verdict"], code) == ("inconclusive", 12)


@pytest.mark.parametrize(
    ("expected", "ran", "cell"),
    [
        (("kvm", "hardware"), "tcg", ("tcg", "emulated", True)),
        (("tcg", "emulated"), "kvm", ("kvm", "hardware", False)),
        (("hwvirt", "hardware"), "interpreter", ("interpreter", "none", True)),
        (("hwvirt", "hardware"), "native", ("native", "hardware", False)),
    ],
)
def test_the_cell_is_of_what_ran(
    bed: Bed,
    monkeypatch: pytest.MonkeyPatch,
    expected: tuple[str, Any],
    ran: str,
    cell: tuple[str, str, bool],
) -> None:
    bed.world.facts = EngineFacts("qemu", "7.2", *expected, "fake")
    settings = FakeMachine.settings
    monkeypatch.setattr(FakeMachine, "settings", lambda self: settings(self) | {"acceleration": ran})
    found = _up(bed)[0]["cell"]
    assert (found["acceleration"], found["nesting"], found["emulated"]) == cell
    assert bed.lab().record().ran == ran


def test_a_creation_that_was_cut_short_is_gone_on_with(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    create = FakeMachine.create

    def cut(self: FakeMachine) -> None:
        create(self)
        if bed.world.calls.count("create") == 1:
            raise DeadlineError("it did not finish")

    monkeypatch.setattr(FakeMachine, "create", cut)
    assert _up(bed)[1] == 12
    assert _up(bed)[1] == 0
    assert bed.world.calls.count("create") == 2


def test_a_crashed_vm_is_ended_before_it_is_started(bed: Bed) -> None:
    _up(bed)
    bed.world.state, bed.world.l2 = State.CRASHED, None
    before = len(bed.world.calls)
    assert _up(bed)[1] == 0
    done = bed.world.calls[before:]
    assert done.index("stop") < done.index("start")


def test_a_suspend_that_was_cut_short_is_repeated(bed: Bed) -> None:
    _up(bed)
    bed.world.state = State.PAUSED
    assert checked(power.suspend(bed.session(), NAME))["state"] == "suspended"


def test_a_snapshot_that_is_there_is_known(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _up(bed)
    monkeypatch.setattr(FakeMachine, "snapshot", _raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        snapshots.snapshot(bed.session(), NAME, "good")
    assert bed.lab().record().saved["good"].instances["main"].nonce == bed.main().nonce
    run = bed.runs()[-1]
    validate(bed.session(), NAME)
    assert bed.main().nonce not in (bed.runs()[-1] / "lab.json").read_text()
    assert run != bed.runs()[-1]


def test_the_clock_is_set_whichever_command_wakes_the_vm(bed: Bed) -> None:
    _up(bed)
    for state, wake in (
        (State.SUSPENDED, lambda: _up(bed)),
        (State.RUNNING, lambda: power.resume(bed.session(), NAME)),
    ):
        bed.world.state = state
        before = len(bed.world.calls)
        wake()
        assert "date" in bed.world.calls[before:]


def test_an_engine_that_does_not_answer_costs_no_report(bed: Bed) -> None:
    bed.world.available = Availability(False, "VirtualBox is not installed")
    bed.world.broken["status"] = BlockedError("VirtualBox is not installed")
    document, code = _up(bed)
    assert (document["schema"], code, document["access"]) == ("lab.up/1", 11, None)
    assert checked(status.status(bed.session(), NAME))["lab"]["state"] == "unknown"


@pytest.mark.parametrize("name", ["", "..", "../evidence", "a/b"])
def test_a_name_that_is_none_makes_nothing(bed: Bed, name: str) -> None:
    _up(bed)
    folder = bed.session().store.labs_folder.parent
    before = sorted(folder.rglob("*"))
    for command in (power.halt, validate, status.status):
        with pytest.raises(UsageError):
            command(bed.session(), name)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("stage", ["image", "boot"])
def test_what_nobody_waits_for_any_more_is_not_waited_for(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    ended: list[str] = []

    def long_work(*_: object) -> None:
        try:
            for _ in range(600):
                time.sleep(0.02)
                deadline.check_cancelled()
        except InterruptedByUser:
            ended.append(stage)
            raise

    def beside(make: Callable[[], Any], *_: object) -> Any:
        """Only what goes on beside the climb logs in."""
        if threading.current_thread() is threading.main_thread():
            raise DeadlineError("no login")
        return make()

    if stage == "image":
        bed.use(guest_image=_raising(BlockedError("not reachable")))
        bed.world.before["prepare"] = long_work
    else:
        bed.use(log_in=beside)
        bed.world.before["docker"] = long_work
    _up(bed)
    assert ended == [stage]
    assert not deadline.cancelled.is_set()


def test_destroy_beside_a_list_that_sweeps(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    _up(bed)
    remove = labs.shutil.rmtree
    sweeping = threading.Lock()

    def beside(path: Any, *words: Any, **more: Any) -> None:
        if sweeping.acquire(blocking=False):
            bed.session().store.labs()  # `lab.list` removes what a killed destroy left
        remove(path, *words, **more)

    monkeypatch.setattr(labs.shutil, "rmtree", beside)
    checked(destroy(bed.session(), NAME))
    assert bed.session().store.labs() == []


def test_a_converted_disk_that_a_lab_stands_on_is_kept(bed: Bed) -> None:
    _up(bed)
    folder = bed.session().settings.cache_dir / "virtualbox"
    folder.mkdir(parents=True)
    used, unused = folder / "debian-13-fake-12g.vdi", folder / "debian-13-old-12g.vdi"
    for path in (used, unused):
        path.write_text("x")
    checked(prune(bed.session()))
    assert used.exists() and not unused.exists()

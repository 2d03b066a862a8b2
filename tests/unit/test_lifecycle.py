"""What is done to a lab as a whole converges, and never says that L2 is back when it is not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from lab.core import lock
from lab.core.errors import (
    BlockedError,
    BusyError,
    InconclusiveError,
    InterruptedByUser,
    LabError,
    UsageError,
)
from lab.core.lock import hold
from lab.engines.protocol import State
from lab.records import evidence
from lab.tasks.emulator import instances
from lab.tasks.lab import power, snapshots
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow import selection
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from tests.unit.bed import Bed, checked
from tests.unit.fakes import TCG

NAME = "default"


def test_halt_converges(ready: Bed) -> None:
    first = checked(power.halt(ready.session(), NAME))
    again = checked(power.halt(ready.session(), NAME))
    assert (first["state"], first["changed"], first["notes"]) == ("stopped", True, ["powered off"])
    assert (again["state"], again["changed"]) == ("stopped", False)


def test_halt_of_a_lab_whose_vm_was_never_made(ready: Bed) -> None:
    ready.lab().change(image="")
    with ready.untouched():
        assert not checked(power.halt(ready.session(), NAME))["changed"]


def test_suspend_and_resume_converge(ready: Bed) -> None:
    suspended = checked(power.suspend(ready.session(), NAME))
    assert (suspended["state"], suspended["changed"]) == ("suspended", True)
    assert not checked(power.suspend(ready.session(), NAME))["changed"]
    before = ready.lab().record().forwards
    with ready.untouched("resume", "date"):
        resumed = checked(power.resume(ready.session(), NAME))
    assert (resumed["state"], resumed["changed"]) == ("running", True)
    assert "ADB answers" in resumed["notes"][0]
    assert ready.world.calls[-2:] == ["date", "prove"]  # the clock first, then L2 itself
    assert ready.lab().record().forwards == before
    with ready.untouched("date"):
        assert not checked(power.resume(ready.session(), NAME))["changed"]


def test_a_machine_whose_suspend_was_cut_short_goes_on(ready: Bed) -> None:
    ready.world.state = State.PAUSED
    with ready.untouched("resume", "date"):
        assert checked(power.resume(ready.session(), NAME))["state"] == "running"


@pytest.mark.parametrize(("nonce", "boot_id"), [("of another", "boot-of-l2-1"), (None, "boot-of-l1-1")])
def test_resume_is_not_fooled_by_a_stranger(ready: Bed, nonce: str | None, boot_id: str) -> None:
    power.suspend(ready.session(), NAME)
    validate(ready.session(), NAME)  # looks at a suspended lab, and learns no boot id
    l2 = ready.world.l2
    assert l2
    l2.nonce, l2.boot_id = nonce or l2.nonce, boot_id
    with pytest.raises(InconclusiveError, match="not this lab's L2"):
        power.resume(ready.session(), NAME)


def test_resume_says_when_l2_is_not_under_kvm(ready: Bed) -> None:
    power.suspend(ready.session(), NAME)
    assert ready.world.l2
    ready.world.l2.hypervisor = TCG
    with pytest.raises(LabError, match=TCG):
        power.resume(ready.session(), NAME)


def test_resume_asks_every_emulator(ready: Bed) -> None:
    instances.up(ready.session(), NAME, "second")
    instances.up(ready.session(), NAME, "third")
    ready.world.ended.add("third")
    power.suspend(ready.session(), NAME)
    second = ready.lab().record().forwards["adb-second"].host_port
    main = ready.lab().record().forwards["adb"].host_port
    assert checked(power.resume(ready.session(), NAME))["notes"] == [
        f"ADB answers at 127.0.0.1:{main}",
        f"second answers at 127.0.0.1:{second}",
        "third does not run",
    ]


def test_resume_does_not_say_that_all_is_back_when_one_emulator_is_not(ready: Bed) -> None:
    instances.up(ready.session(), NAME, "second")
    power.suspend(ready.session(), NAME)
    ready.world.others["second"].hypervisor = TCG
    with pytest.raises(LabError) as lost:
        power.resume(ready.session(), NAME)
    assert lost.value.what.startswith("the VM is back, but its guest is not: second: ")
    assert TCG in lost.value.what
    assert "emulator.restart second" in lost.value.hint
    assert ready.world.state is State.RUNNING, "the VM itself is back"


def test_resume_names_all_that_are_lost_and_could_not_be_settled(ready: Bed) -> None:
    instances.up(ready.session(), NAME, "second")
    power.suspend(ready.session(), NAME)
    assert ready.world.l2
    ready.world.l2.nonce = ready.world.others["second"].nonce = "of another"
    with pytest.raises(InconclusiveError) as lost:
        power.resume(ready.session(), NAME)
    assert "; second: " in lost.value.what and lost.value.what.count("not this lab's L2") == 2
    assert "lab.status" in lost.value.hint, "what was known of the first is kept"


def test_resume_can_be_interrupted_while_it_asks(ready: Bed) -> None:
    power.suspend(ready.session(), NAME)
    ready.world.broken["prove"] = InterruptedByUser("interrupted")
    with pytest.raises(InterruptedByUser):
        power.resume(ready.session(), NAME)


@pytest.mark.parametrize("state", [State.STOPPED, State.ABSENT])
def test_only_what_can_be_is_suspended_or_resumed(ready: Bed, state: State) -> None:
    ready.world.state = state
    with ready.untouched():
        for act in (power.suspend, power.resume):
            with pytest.raises(UsageError, match=state.value):
                act(ready.session(), NAME)


def test_snapshots_of_a_running_and_of_a_stopped_lab(ready: Bed) -> None:
    checked(snapshots.snapshot(ready.session(), NAME, "live"))
    power.halt(ready.session(), NAME)
    checked(snapshots.snapshot(ready.session(), NAME, "cold"))
    rows = checked(snapshots.snapshots(ready.session(), NAME))["snapshots"]
    assert [(row["name"], row["live"]) for row in rows] == [("live", True), ("cold", False)]
    cold = checked(snapshots.restore(ready.session(), NAME, "cold"))
    assert (cold["state"], cold["notes"]) == ("stopped", ["the VM is off, as it was then"])
    with pytest.raises(UsageError):
        snapshots.snapshot(ready.session(), NAME, "cold")
    with pytest.raises(UsageError):
        snapshots.restore(ready.session(), NAME, "never")
    with pytest.raises(UsageError):
        snapshots.snapshot(ready.session(), NAME, "../elsewhere")


def test_restoring_a_live_snapshot_asks_l2(ready: Bed) -> None:
    snapshots.snapshot(ready.session(), NAME, "live")
    with ready.untouched("restore", "date"):
        restored = checked(snapshots.restore(ready.session(), NAME, "live"))
    assert (restored["state"], ready.world.calls[-1]) == ("running", "prove")


def test_a_snapshot_brings_back_the_l2_of_then_though_another_was_launched_since(ready: Bed) -> None:
    snapshots.snapshot(ready.session(), NAME, "live")
    then = ready.main().nonce
    power.halt(ready.session(), NAME)
    up(ready.session(), NAME)
    assert ready.main().nonce != then
    restored = checked(snapshots.restore(ready.session(), NAME, "live"))
    assert restored["state"] == "running"
    assert ready.main().nonce == then


def test_what_has_no_vm_has_nothing_to_be_done_to(bed: Bed) -> None:
    with pytest.raises(UsageError, match="no lab"):
        power.halt(bed.session(), NAME)
    bed.session().store.place(NAME)
    with pytest.raises(UsageError, match="never finished"):
        power.suspend(bed.session(), NAME)


def test_destroy_leaves_the_evidence_and_nothing_else(ready: Bed) -> None:
    document = checked(destroy(ready.session(), NAME))
    assert (document["state"], document["changed"]) == ("absent", True)
    assert ready.world.state is State.ABSENT
    assert ready.session().store.labs() == []
    assert [path.name.rpartition("-")[2] for path in ready.runs()] == ["up", "destroy"]
    with pytest.raises(UsageError):
        destroy(ready.session(), NAME)
    assert up(ready.session(), NAME).code == 0
    checked(destroy(ready.session(), NAME, purge=True))
    assert not (ready.session().store.evidence_folder / NAME).exists()


def test_a_full_disk_is_no_reason_to_keep_what_fills_it(ready: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((evidence, "write_json"), (evidence, "write_atomic"), (lock, "write_json")):
        monkeypatch.setattr(module, name, full)
    document = checked(destroy(ready.session(), NAME))
    assert any("evidence could not be saved: [Errno 28]" in note for note in document["notes"])
    assert ready.world.state is State.ABSENT and ready.session().store.labs() == []


def test_a_restore_that_is_refused_beforehand_forgets_no_emulator(ready: Bed) -> None:
    snapshots.snapshot(ready.session(), NAME, "one")
    instances.up(ready.session(), NAME, "second", "canary")
    before = ready.lab().record()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BlockedError):
        snapshots.restore(ready.session(ports={"adb": taken.getsockname()[1]}), NAME, "one")
    assert ready.lab().record() == before and "restore" not in ready.world.calls


def test_a_lab_without_a_record_is_destroyed(bed: Bed) -> None:
    bed.session().store.place(NAME)
    with bed.untouched():
        checked(destroy(bed.session(), NAME))
    assert bed.session().store.labs() == []


def test_a_lab_without_an_image_is_destroyed(bed: Bed) -> None:
    selection.record_for(bed.session(), bed.session().store.place(NAME))
    with bed.untouched():
        checked(destroy(bed.session(), NAME))
    assert bed.session().store.labs() == []


def test_what_an_engine_made_goes_though_the_record_names_no_image(ready: Bed) -> None:
    ready.lab().change(image="")
    checked(destroy(ready.session(), NAME))
    assert "destroy" in ready.world.calls and ready.session().store.labs() == []


def test_a_destroy_that_was_cut_short_is_repeated(ready: Bed) -> None:
    ready.world.broken["destroy"] = LabError("the process does not end")
    with pytest.raises(LabError, match="does not end"):
        destroy(ready.session(), NAME)
    assert ready.lab().record().image  # still known: else its VM would be lost
    ready.world.broken.clear()
    checked(destroy(ready.session(), NAME))
    assert ready.world.state is State.ABSENT


@pytest.mark.parametrize("act", [power.halt, power.suspend, power.resume, destroy])
def test_one_command_at_a_time(ready: Bed, act: Callable[[Session, str], object]) -> None:
    held = hold(ready.lab().lock_file, "lab.up", "lab")
    with held, ready.untouched(), pytest.raises(BusyError, match=r"lab\.up"):
        act(ready.session(), NAME)

"""VirtualBoxMachine over a stand-in for the worker: states, refusals, the journal."""

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, LabError, UsageError
from lab.engines.protocol import DiskFullError, Forward, NestingRefusedError, PortTakenError, State
from lab.engines.virtualbox.transport import ForeignError
from lab.engines.virtualbox.vm import VmPatience, vm_processes
from tests.unit.vbox_client import UUID, FakeClient, machine_in

LOG = """\
00:00:01.2 HM: HMR3Init: AMD-V w/ nested paging
00:00:01.3   NestedHWVirt       <integer> = 0x0000000000000001 (1)
"""
STATES = {
    "": State.ABSENT,
    "PoweredOff": State.STOPPED,
    "Aborted": State.STOPPED,
    "AbortedSaved": State.SUSPENDED,
    "Stuck": State.CRASHED,
    "Running": State.RUNNING,
    "Paused": State.PAUSED,
    "Saved": State.SUSPENDED,
}


@pytest.fixture
def box():
    return FakeClient()


@pytest.fixture
def machine(tmp_path, box):
    """It waits for little, as nobody else's VirtualBox is to answer."""
    return machine_in(tmp_path, box, {"patience": VmPatience(0.25, 0.2, 0.05, 0.2)})


@pytest.fixture
def created(machine):
    machine.create()
    return machine


def journal_of(machine):
    return [(entry.kind, entry.key, entry.done) for entry in machine._journal.entries()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_made_is_in_the_journal_first(machine, box, tmp_path):
    box.broken["create"] = LabError("VirtualBox failed")
    with pytest.raises(LabError):
        machine.create()
    folder = tmp_path / "vm"
    keys = [("vm", UUID), ("file", str(folder / "lab.vbox")), ("file", str(folder / "disk.vdi"))]
    assert journal_of(machine) == [(*key, False) for key in keys]
    box.broken.clear()
    machine.create()
    assert journal_of(machine) == [(*key, True) for key in keys]
    assert machine._journal.entries("vm")[0].facts["base"] == str(tmp_path / "cache/image-12g.vdi")


def test_what_the_worker_is_given(tmp_path, box):
    machine_in(tmp_path, box, execution_engine="interpreter", extra_data=["a=b"]).create()
    spec = box.spec
    assert (spec["uuid"], spec["name"]) == (UUID, f"lab-demo-{UUID[:8]}")
    assert (spec["cpus"], spec["memory_mib"], spec["paravirt"], spec["nested"]) == (2, 2048, "kvm", True)
    assert (spec["execution_engine"], spec["extra_data"]) == ("interpreter", ["a=b"])
    folder = tmp_path / "vm"
    assert all(Path(spec[key]).parent == folder for key in ("settings", "disk", "console"))
    assert (spec["folder"], spec["seed"]) == (str(folder), str(tmp_path / "seed.iso"))


@pytest.mark.parametrize("state", ["Running", "Paused", "Saved", "AbortedSaved", "Starting", "Stuck"])
def test_what_is_in_use_is_not_made_again(machine, box, state):
    box.state = state
    machine.create()
    assert box.asked == [] and journal_of(machine) == []


def test_settings_that_cannot_be_read(machine, box):
    box.state, box.accessible, box.spec = "PoweredOff", False, {"settings": "/x/lab.vbox"}
    with pytest.raises(LabError, match="cannot read the settings") as caught:
        machine.status()
    assert caught.value.evidence == ["/x/lab.vbox"] and "lab.destroy --name demo" in caught.value.hint


@pytest.mark.parametrize("state", STATES)
def test_status(machine, box, state):
    box.state = state
    assert machine.status() is STATES[state]


FULL = """00:00:09.1 Changing the VM state from 'CREATED' to 'RUNNING'
00:01:02.3 VD#0: Host disk full
00:01:02.4 Changing the VM state from 'RUNNING' to 'SUSPENDING'
00:01:02.5 Console: VM runtime error: fatal=false, errorID=DrvVD_DISKFULL message="Host system reported"
"""


def test_a_vm_paused_for_want_of_disk_is_not_resumed_into_the_same_hole(created, box, monkeypatch):
    log = created.spec.folder / "Logs" / "VBox.log"
    log.parent.mkdir()
    log.write_text(FULL)
    box.state = "Running"
    assert created.status() is State.RUNNING
    box.state = "Paused"
    assert created.status() is State.DISK_FULL
    free = {"bytes": 0}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free["bytes"]))
    for begin in (created.resume, created.start):
        with pytest.raises(DiskFullError) as caught:
            begin([])
        assert caught.value.evidence == [str(created.spec.folder)] and box.state == "Paused"
    free["bytes"] = 1 << 40
    created.resume([])
    assert box.state == "Running"
    log.write_text(FULL + "00:02:00.0 Changing the VM state from 'SUSPENDED' to 'RESUMING'\n")
    box.state = "Paused"
    assert created.status() is State.PAUSED


def test_states_of_passage_are_waited_out(created, box):
    box.passing = ["Starting", "Restoring"]
    box.state = "Running"
    assert created.status() is State.RUNNING
    assert len([name for name, _ in box.calls if name == "look"]) == 4


def test_a_state_of_passage_that_stays(created, box):
    box.state = "Stopping"
    with pytest.raises(DeadlineError, match="Stopping"):
        created.status()


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ("PoweredOff", ["launch"]),
        ("Aborted", ["launch"]),
        ("Saved", ["launch"]),
        ("AbortedSaved", ["launch"]),
        ("Stuck", ["power_off", "launch"]),
        ("Paused", ["resume"]),
        ("Running", []),
    ],
)
def test_start(created, box, state, asked):
    box.state = state
    box.calls.clear()
    created.start([])
    assert box.asked == asked and box.state == "Running"


def test_a_start_before_anything_is_made(machine):
    with pytest.raises(LabError, match="not created yet"):
        machine.start([])


def test_forwards_are_those_of_the_loopback_while_it_runs(created, box):
    port = free_port()
    created.start([Forward("ssh", port, 22)])
    box.redirects.append({"name": "open", "address": "0.0.0.0", "host_port": 80, "guest_port": 80})
    assert created.forwards() == [Forward("ssh", port, 22)]
    box.state = "Paused"
    assert created.forwards() == []


def test_forwards_come_and_go_while_it_runs(created, box):
    first, added = Forward("ssh", free_port(), 22), Forward("adb-second", free_port(), 5655)
    with pytest.raises(UsageError):
        created.add_forward(added)
    created.remove_forward("adb-second")
    created.start([first])
    answers = iter([True, True, False])  # free, then not yet listened on, then listened on
    created._is_free = lambda _port: next(answers)
    created.add_forward(added)
    created.add_forward(added)  # it is there: VirtualBox is not asked
    assert created.forwards() == [first, added]
    assert box.asked.count("forward") == 1
    created.remove_forward("adb-second")
    assert created.forwards() == [first]


def test_a_forward_that_is_not_opened_is_not_kept(created, box):
    created.start([])
    port = free_port()
    with pytest.raises(PortTakenError, match="does not listen") as caught:
        created.add_forward(Forward("adb-second", port, 5655))
    assert caught.value.ports == [port] and created.forwards() == []


def test_taken_ports_are_named_and_nothing_is_launched(created, box):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = [one.getsockname()[1], two.getsockname()[1]]
        wanted = [Forward("a", taken[0], 22), Forward("b", free_port(), 23), Forward("c", taken[1], 24)]
        with pytest.raises(PortTakenError) as caught:
            created.start(wanted)
    assert caught.value.ports == taken and all(str(port) in caught.value.what for port in taken)
    assert box.state == "PoweredOff" and "launch" not in box.asked


def test_a_refusal_to_nest_is_passed_on(created, box):
    box.broken["launch"] = NestingRefusedError("no")
    with pytest.raises(NestingRefusedError):
        created.start([])


def test_a_stale_process_of_the_vm_is_ended_before_a_launch(created, box):
    """VirtualBox says it is off; a process of it is left whose VBoxSVC died."""
    argv = ["/usr/lib/virtualbox/VBoxHeadless", "-c", "import time; time.sleep(60)", "--startvm", UUID]
    other = [*argv[:-1], UUID.replace("1", "2")]
    with (
        subprocess.Popen(argv, executable=sys.executable) as stale,
        subprocess.Popen(other, executable=sys.executable) as neighbour,
    ):
        try:
            assert [item.pid for item in vm_processes(UUID)] == [stale.pid]
            created.start([])
            assert stale.poll() is not None and neighbour.poll() is None
        finally:
            stale.kill()
            neighbour.kill()
    assert box.state == "Running"


@pytest.mark.parametrize(
    ("state", "said", "asked"),
    [
        ("", "already", []),
        ("PoweredOff", "already", []),
        ("Aborted", "already", []),
        ("Saved", "already", []),
        ("AbortedSaved", "already", []),
        ("Running", "graceful", ["press"]),
        ("Paused", "graceful", ["press"]),
        ("Stuck", "forced", ["power_off"]),
    ],
)
def test_stop(created, box, state, said, asked):
    box.state = state
    box.calls.clear()
    assert created.stop(Deadline.after(30)) == said
    assert box.asked == asked
    assert box.state == state if said == "already" else box.state in ("PoweredOff", "Aborted")


def test_a_guest_that_misses_the_button_is_asked_again_and_then_unplugged(created, box):
    box.state, box.polite = "Running", False
    assert created.stop(Deadline.after(0.5)) == "forced"
    assert box.asked.count("press") >= 2 and box.asked[-1] == "power_off"
    box.state = "Running"
    box.calls.clear()
    assert created.stop(Deadline.after(0)) == "forced"
    assert box.asked == ["power_off"]


def test_a_guest_that_went_by_itself_at_the_last_moment(created, box):
    box.state, box.polite = "Running", False
    box.gone_by_itself = True
    assert created.stop(Deadline.after(0.05)) == "graceful"


def test_destroy_empties_the_folder_and_the_journal(created, box, tmp_path):
    created.start([])
    created.destroy()
    (words,) = [words for name, words in box.calls if name == "destroy"]
    assert words == {
        "uuid": UUID,
        "folder": str(tmp_path / "vm"),
        "base": str(tmp_path / "cache/image-12g.vdi"),
        "seed": str(tmp_path / "seed.iso"),
    }
    assert not created.spec.folder.exists() and journal_of(created) == []
    created.destroy()
    assert box.asked.count("destroy") == 1, "there is nothing to ask VirtualBox about"


@pytest.mark.parametrize("trace", ["journal", "lab.vbox", "disk.vdi", "console.log"])
def test_a_half_made_machine_is_destroyed_by_any_trace(machine, box, trace):
    if trace == "journal":
        machine._journal.intend("vm", UUID, base="/cache/base.vdi")
    else:
        machine.spec.folder.mkdir()
        (machine.spec.folder / trace).touch()
    machine.destroy()
    assert box.asked == ["destroy"] and not machine.spec.folder.exists()


def test_what_is_somebody_elses_is_kept_and_so_is_the_journal(created, box):
    box.broken["destroy"] = ForeignError("not lab's")
    with pytest.raises(ForeignError):
        created.destroy()
    assert created.spec.folder.exists() and len(journal_of(created)) == 3


def test_a_machine_that_stays_is_told(created, box):
    box.stays = True
    with pytest.raises(LabError, match="still has the machine"):
        created.destroy()
    assert created.spec.folder.exists() and len(journal_of(created)) == 3


def test_settings_and_what_the_log_says_of_the_run(machine, box):
    assert machine.settings() == {}
    machine.create()
    assert machine.settings() == {
        "cpus": "2",
        "memory_mib": "2048",
        "nested": "on",
        "acceleration": "unknown",
    }
    log = machine.spec.folder / "Logs/VBox.log"
    log.parent.mkdir()
    log.write_text(LOG)
    found = machine.settings()
    assert found["acceleration"] == "hwvirt"
    assert found["log_engine"] == "HM: HMR3Init: AMD-V w/ nested paging"
    assert found["log_nested"] == "NestedHWVirt <integer> = 0x0000000000000001 (1)"
    assert machine.logs() == [log, machine.spec.folder / "lab.vbox"]
    assert machine.console() == machine.spec.folder / "console.log"


def test_a_screenshot_is_whole_or_not_there(created, box, tmp_path):
    created.start([])
    target = tmp_path / "shots/screen.png"
    created.screenshot(target)
    assert target.read_bytes() == b"PNG"
    box.broken["screenshot"] = LabError("no")
    with pytest.raises(LabError):
        created.screenshot(target)
    assert [item.name for item in target.parent.iterdir()] == ["screen.png"]

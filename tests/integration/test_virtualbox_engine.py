"""The engine on the real VirtualBox 7.2: VMs run in its interpreter, their guest is one boot sector."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from bootsector import VIRTUALBOX, Heart, base_disk, free_port

from lab.core.deadline import Deadline, poll
from lab.core.errors import BusyError, LabError, UsageError
from lab.core.journal import Journal
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import Forward, MachineSpec, NestingRefusedError, PortTakenError, State
from lab.engines.virtualbox import host
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.engine import VirtualBoxEngine
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.manage import Manage
from lab.engines.virtualbox.transport import ForeignError, MissingError, Transport
from lab.engines.virtualbox.vm import vm_processes
from tests.integration.vboxroot import Instance

pytestmark = pytest.mark.slow

HOME = Path("/usr/lib/virtualbox")
GLUE = Path("/usr/lib/python3/dist-packages")
"""Where Debian's package puts them, in the root."""

OPTIONS = VirtualBoxOptions(execution_engine="interpreter")
Make = Callable[..., VirtualBoxMachine]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Base images as the cache has them: a folder each, whose name is the image's id."""
    found = {}
    for polite in (False, True):
        folder = tmp_path_factory.mktemp(f"image-{polite}")
        found[polite] = base_disk(folder / "disk.qcow2", polite, VIRTUALBOX)
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["vboxapi", "VBoxManage"])
def transport(request: pytest.FixtureRequest, vbox: Instance) -> Callable[[], Transport]:
    """Makes transports to the real VirtualBox, of the kind the test runs with."""
    if request.param == "vboxapi":
        return lambda: WorkerClient(str(vbox.python), HOME, (GLUE,))
    return lambda: Manage(vbox.home)


@pytest.fixture
def client(transport: Callable[[], Transport]) -> Iterator[Transport]:
    made = transport()
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path, bases: dict[bool, Path], cache: Path, client: Transport) -> Iterator[Make]:
    """Makes machines, all destroyed at the end, with whatever still runs of them."""
    made: list[VirtualBoxMachine] = []
    seed = tmp_path / "seed.iso"
    seed.write_bytes(b"\0" * 65536)

    def build(polite: bool = False, folder: str = "vm", **changes: object) -> VirtualBoxMachine:
        spec = MachineSpec(
            uuid=str(uuid.uuid4()),
            name="test",
            folder=tmp_path / folder,
            base_disk=bases[polite],
            seed=seed,
            cpus=1,
            memory_mib=64,
            disk_gib=1,
            nested=False,
        )
        spec = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
        journal = Journal(tmp_path / "journal.jsonl")
        made.append(VirtualBoxMachine(spec, journal, lambda: client, OPTIONS, cache))
        return made[-1]

    yield build
    for machine in made:
        for running in vm_processes(machine.spec.uuid):
            running.kill()
        with contextlib.suppress(ForeignError):
            machine.destroy()


def _again(machine: VirtualBoxMachine, client: Transport) -> VirtualBoxMachine:
    """The same machine as another command sees it."""
    return VirtualBoxMachine(
        machine.spec, Journal(machine._journal.path), lambda: client, OPTIONS, machine._cache
    )


def _started(machine: VirtualBoxMachine, *forwards: Forward) -> VirtualBoxMachine:
    machine.create()
    machine.start(forwards)
    Heart.wait(machine)
    return machine


def _suspended(machine: VirtualBoxMachine) -> None:
    """Suspend it. VirtualBox 7.2.22's own process may crash of its virtio card meanwhile (a string lies
    where a semaphore's address was); that is told, and tried again with a fresh process.
    """
    for _ in range(5):
        try:
            return machine.suspend()
        except LabError as error:
            assert "crashed while it saved" in error.what, error.tail
            assert machine.status() is State.STOPPED
            machine.start([])
            Heart.wait(machine)
    raise AssertionError("VirtualBox crashed five times")


def test_a_machine_from_nothing_to_nothing(make: Make, client: Transport, tmp_path: Path) -> None:
    machine = make(polite=True)
    assert machine.status() is State.ABSENT
    assert machine.stop(Deadline.after(1)) == "already"
    _started(machine)
    assert machine.status() is State.RUNNING
    machine.start([])  # nothing to do
    assert _again(machine, client).status() is State.RUNNING
    assert machine.stop(Deadline.after(60)) == "graceful"
    assert machine.status() is State.STOPPED
    machine.create()  # converges
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot")[-1] == 2, "the disk remembers"
    machine.destroy()
    assert machine.status() is State.ABSENT
    assert not machine.spec.folder.exists()
    assert not vm_processes(machine.spec.uuid)
    assert Journal(tmp_path / "journal.jsonl").entries() == []
    machine.destroy()  # once more


def test_what_was_set_is_read_back_and_the_log_says_what_ran(make: Make) -> None:
    machine = make(cpus=2, memory_mib=96, paravirt="kvm")
    _started(machine)
    found = machine.settings()
    assert (found["cpus"], found["memory_mib"], found["nested"]) == ("2", "96", "off")
    assert (found["paravirt"], found["nested_paging"]) == ("kvm", "on")
    assert (found["acceleration"], found["execution_engine"]) == ("interpreter", "interpreter")
    assert found["uuid"] == machine.spec.uuid and found["version"].startswith("7.2.")
    assert machine.logs()[0].name.startswith("VBox") or machine.logs()[-1].name == "lab.vbox"


def test_nesting_that_virtualbox_refuses_is_said_as_such(make: Make) -> None:
    machine = make(nested=True)
    machine.create()
    assert machine.settings()["nested"] == "on", "accepted"
    with pytest.raises(NestingRefusedError) as caught:
        machine.start([])
    assert "VERR_CPUM_INVALID_HWVIRT_CONFIG" in caught.value.tail
    assert machine.status() is State.STOPPED


def test_forwards_listen_on_the_loopback_only(make: Make) -> None:
    wanted = [Forward("ssh", free_port(), 22), Forward("adb", free_port(), 5555)]
    machine = _started(make(), *wanted)
    assert sorted(machine.forwards(), key=lambda item: item.name) == sorted(
        wanted, key=lambda item: item.name
    )
    (process,) = vm_processes(machine.spec.uuid)
    listening = [item.laddr for item in process.net_connections("inet") if item.status == psutil.CONN_LISTEN]
    assert sorted(port for _, port in listening) == sorted(item.host_port for item in wanted)
    assert {address for address, _ in listening} == {"127.0.0.1"}
    with socket.create_connection(("127.0.0.1", wanted[0].host_port), 5):
        pass


def test_forwards_come_and_go_while_it_runs(make: Make, client: Transport) -> None:
    first, added = Forward("ssh", free_port(), 22), Forward("adb-second", free_port(), 5655)
    machine = make()
    with pytest.raises(UsageError, match="does not run"):
        machine.add_forward(added)
    machine.remove_forward("adb-second")
    _started(machine, first)
    other = _again(machine, client)
    for _ in range(2):
        other.add_forward(added)
    assert sorted(machine.forwards(), key=str) == sorted([first, added], key=str)
    with socket.create_connection(("127.0.0.1", added.host_port), 5):
        pass
    moved = Forward("adb-second", free_port(), 5655)
    machine.add_forward(moved)
    assert _listening(machine) == {("127.0.0.1", first.host_port), ("127.0.0.1", moved.host_port)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            machine.add_forward(Forward("novnc-second", port, 6180))
    assert caught.value.ports == [port]
    assert sorted(other.forwards(), key=str) == sorted([first, moved], key=str)
    _suspended(machine)
    machine.resume([first, moved])
    assert sorted(machine.forwards(), key=str) == sorted([first, moved], key=str)
    for _ in range(2):
        machine.remove_forward("adb-second")
    assert machine.forwards() == [first]
    assert _listening(machine) == {("127.0.0.1", first.host_port)}


def _listening(machine: VirtualBoxMachine) -> set[tuple[str, int]]:
    """What its process listens on, once it is settled: VirtualBox opens and closes a moment later."""
    (process,) = vm_processes(machine.spec.uuid)
    seen: set[tuple[str, int]] = set()

    def settled() -> set[tuple[str, int]] | None:
        nonlocal seen
        found = {
            (item.laddr.ip, item.laddr.port)
            for item in process.net_connections("inet")
            if item.status == psutil.CONN_LISTEN
        }
        before, seen = seen, found
        return found if found == before else None

    return poll(settled, Deadline.after(10), "the same ports twice")


def test_a_taken_port_is_named_and_nothing_runs(make: Make) -> None:
    machine = make()
    machine.create()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            machine.start([Forward("ssh", port, 22)])
    assert caught.value.ports == [port]
    assert machine.status() is State.STOPPED
    machine.start([Forward("ssh", port, 22)])
    assert machine.forwards() == [Forward("ssh", port, 22)]


def test_a_suspended_machine_goes_on_where_it_was_on_other_ports(make: Make, client: Transport) -> None:
    machine = _started(make(), Forward("ssh", free_port(), 22))
    _suspended(machine)
    assert machine.status() is State.SUSPENDED
    machine.suspend()  # no-op
    assert not vm_processes(machine.spec.uuid)
    before = Heart.numbers(machine, "beat")[-1]
    port = free_port()
    _again(machine, client).resume([Forward("ssh", port, 22)])
    Heart.wait(machine)
    assert Heart.numbers(machine, "beat")[-1] > before and Heart.numbers(machine, "boot") == [], (
        "it did not boot anew"
    )
    assert "boot 0001" in machine._layout.console_before.read_text(), "what it wrote before is kept"
    assert machine.forwards() == [Forward("ssh", port, 22)]
    with pytest.raises(UsageError, match="not suspended"):
        machine.stop(Deadline.after(0))
        machine.resume([])


def test_a_paused_machine_runs_on(make: Make, vbox: Instance) -> None:
    machine = _started(make())
    vbox.run("VBoxManage", "controlvm", machine.spec.uuid, "pause")
    assert machine.status() is State.PAUSED
    machine.resume([])
    Heart.wait(machine)
    assert machine.status() is State.RUNNING


def test_live_and_offline_snapshots(make: Make) -> None:
    machine = _started(make())
    machine.snapshot("live")
    beat = Heart.numbers(machine, "beat")[-1]
    with pytest.raises(UsageError, match="already"):
        machine.snapshot("live")
    Heart.wait(machine, 5)
    machine.stop(Deadline.after(0))
    machine.snapshot("cold")
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot")[-1] == 2
    assert [(item.name, item.live) for item in machine.snapshots()] == [("live", True), ("cold", False)]

    machine.restore("live", [])
    assert machine.status() is State.RUNNING
    lines = Heart.wait(machine)
    assert lines[-1][1] <= beat + 20, "it goes on from then"
    machine.restore("cold", [])
    assert machine.status() is State.STOPPED
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot")[-1] == 2, "the disk is that of then"
    with pytest.raises(UsageError) as caught:
        machine.restore("clod", [])
    assert caught.value.hint == "there is: cold"


def test_a_screenshot_is_a_png(make: Make, tmp_path: Path) -> None:
    machine = make()
    machine.create()
    with pytest.raises(UsageError, match="no screen"):
        machine.screenshot(tmp_path / "early.png")
    _started(machine)
    machine.screenshot(tmp_path / "screen.png")
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_deaf_guest_is_stopped_by_force(make: Make) -> None:
    machine = _started(make(polite=False))
    assert machine.stop(Deadline.after(2)) == "forced"
    assert machine.status() is State.STOPPED


def test_a_killed_vm_process_is_a_stopped_machine(make: Make) -> None:
    machine = _started(make())
    (process,) = vm_processes(machine.spec.uuid)
    process.kill()
    poll(lambda: machine.status() is State.STOPPED or None, Deadline.after(30), "Aborted", every=0.1)
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot"), "what the guest had not flushed may be gone, but it boots"


def _kill(vbox: Instance, name: str) -> None:
    victims = [pid for pid, comm in vbox.processes().items() if comm == name]
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def test_the_death_of_vboxsvc_is_survived(make: Make, vbox: Instance) -> None:
    machine = _started(make())
    _kill(vbox, "VBoxSVC")
    assert machine.status() in (State.STOPPED, State.RUNNING), "the worker came back by itself"
    poll(lambda: machine.status() is State.STOPPED or None, Deadline.after(60), "the VM's end", every=0.5)
    machine.start([])  # waits for the process that lost its VBoxSVC
    Heart.wait(machine)
    assert len(vm_processes(machine.spec.uuid)) == 1
    _kill(vbox, "VBoxSVC")
    machine.destroy()
    assert not machine.spec.folder.exists()


def test_a_holder_killed_in_mid_lock_leaves_nothing_locked(make: Make, vbox: Instance) -> None:
    machine = make()
    machine.create()
    other = WorkerClient(str(vbox.python), HOME, (GLUE,))
    code = (
        "import sys, time, virtualbox\n"
        "from lab.engines.virtualbox.worker.api import Api\n"
        f"api = Api(); machine = api.find({machine.spec.uuid!r})\n"
        "with api.locked(machine, 'write'):\n    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [str(vbox.python), "-c", code], env=other._env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError):
            machine.start([])
    finally:
        holder.kill()
        holder.wait()
        other.close()
    assert machine.status() is State.STOPPED  # Aborted, though it never ran
    machine.start([])
    Heart.wait(machine)


def test_saved_memory_outlives_whoever_held_the_vm_and_goes_with_a_restore(
    make: Make, vbox: Instance
) -> None:
    """A holder that is killed makes Saved AbortedSaved: the memory is whole, and is resumed."""
    machine = _started(make())
    machine.snapshot("live")
    _suspended(machine)
    boots = Heart.numbers(machine, "boot")[-1]
    _kill_a_holder(machine, vbox)
    assert machine._vm.look()["state"] == "AbortedSaved"
    assert machine.status() is State.SUSPENDED
    machine.resume([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot")[-1:] in ([], [boots]), "it did not boot anew"
    for aborted in (False, True):
        _suspended(machine)
        if aborted:
            _kill_a_holder(machine, vbox)
        machine.restore("live", [])
        assert machine.status() is State.RUNNING
        Heart.wait(machine)


def test_nat_is_kept_from_the_hosts_loopback(make: Make, vbox: Instance) -> None:
    machine = make()
    machine.create()
    code = (
        "from lab.engines.virtualbox.worker.api import Api\n"
        f"api = Api(); machine = api.find({machine.spec.uuid!r})\n"
        "with api.locked(machine, 'write') as session:\n"
        "    session.machine.get_network_adapter(0).nat_engine._i.localhostReachable = True\n"
        "    session.machine.save_settings()\n"
    )
    _in_a_process_of_its_own(vbox, code).wait(60)
    assert machine.settings()["host_loopback"] == "within reach"
    machine.create()  # converges
    assert machine.settings()["host_loopback"] == "out of reach"


def _in_a_process_of_its_own(vbox: Instance, code: str) -> subprocess.Popen[str]:
    """Python code that has VirtualBox's API, as lab's worker has it."""
    env = WorkerClient(str(vbox.python), HOME, (GLUE,))._env
    return subprocess.Popen([str(vbox.python), "-c", code], env=env, stdout=subprocess.PIPE, text=True)


def _kill_a_holder(machine: VirtualBoxMachine, vbox: Instance) -> None:
    holder = _in_a_process_of_its_own(
        vbox,
        "import time\n"
        "from lab.engines.virtualbox.worker.api import Api\n"
        f"api = Api(); machine = api.find({machine.spec.uuid!r})\n"
        "with api.locked(machine, 'write'):\n    print('held', flush=True); time.sleep(600)\n",
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    poll(lambda: machine._vm.look()["state"] != "Saved" or None, Deadline.after(30), "the notice of it")


def test_two_processes_see_one_machine(make: Make, transport: Callable[[], Transport]) -> None:
    other = transport()
    try:
        machine = _started(make())
        seen = _again(machine, other)
        assert seen.status() is State.RUNNING
        _suspended(seen)
        assert machine.status() is State.SUSPENDED
    finally:
        other.close()


def test_a_cut_creation_is_gone_on_with(make: Make, client: Transport) -> None:
    machine = make()
    machine.create()
    settings = machine.spec.folder / "lab.vbox"
    # As if killed before it was registered: the settings file is there, VirtualBox does not know it.
    kept = settings.read_bytes()
    machine_again = make(folder="other", uuid=machine.spec.uuid)
    client.call(
        "destroy",
        uuid=machine.spec.uuid,
        folder=str(machine.spec.folder),
        base="",
        seed=str(machine.spec.seed),
    )
    assert machine.status() is State.ABSENT
    settings.write_bytes(kept[: len(kept) // 2])  # torn
    machine.create()
    assert machine.status() is State.STOPPED
    assert settings.with_name("lab.vbox.broken").exists()
    _started(machine)
    del machine_again


def test_labs_on_one_base_go_in_either_order_and_the_base_stays(make: Make, cache: Path) -> None:
    for first, second in ((0, 1), (1, 0)):
        pair = [make(folder="a"), make(folder="b")]
        for machine in pair:
            machine.create()
        (base,) = [path for path in (cache / "virtualbox").glob("*.vdi") if "False" in path.name]
        before = base.read_bytes()
        pair[first].destroy()
        assert base.exists()
        _started(pair[second])
        pair[second].destroy()
        assert base.read_bytes() == before
        assert not any(machine.spec.folder.exists() for machine in pair)


def test_a_foreign_disk_and_iso_survive(make: Make, vbox: Instance, tmp_path: Path) -> None:
    machine = make()
    machine.create()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    disk, iso = foreign / "data.vdi", foreign / "data.iso"
    vbox.run("VBoxManage", "-q", "createmedium", "disk", "--filename", disk, "--size", "8")
    iso.write_bytes(b"\0" * 65536)
    vbox.run("VBoxManage", "-q", "storagectl", machine.spec.uuid, "--name", "IDE", "--add", "ide")
    for port, kind, medium in (("0", "hdd", disk), ("1", "dvddrive", iso)):
        place = ["--storagectl", "IDE", "--port", port, "--device", "0", "--type", kind]
        vbox.run("VBoxManage", "-q", "storageattach", machine.spec.uuid, *place, "--medium", medium)
    machine.snapshot("with both")
    machine.destroy()
    assert disk.exists() and iso.exists()
    assert not machine.spec.folder.exists()
    registered = (
        vbox.run("VBoxManage", "-q", "list", "hdds").out + vbox.run("VBoxManage", "-q", "list", "dvds").out
    )
    assert str(machine.spec.folder) not in registered and str(machine.spec.seed) not in registered


def test_a_vm_of_the_same_name_or_uuid_elsewhere_is_never_touched(
    make: Make, vbox: Instance, tmp_path: Path
) -> None:
    machine = make()
    name = f"lab-test-{machine.spec.uuid[:8]}"
    words = ["--name", name, "--ostype", "Other", "--register", "--basefolder", tmp_path / "theirs"]
    vbox.run("VBoxManage", "-q", "createvm", *words)
    _started(machine)
    machine.destroy()
    assert f'"{name}"' in vbox.run("VBoxManage", "-q", "list", "vms").out
    theirs = tmp_path / "theirs" / name / f"{name}.vbox"
    assert theirs.exists()

    stranger = make()
    words = [*words[:1], "stranger", *words[2:], "--uuid", stranger.spec.uuid]
    vbox.run("VBoxManage", "-q", "createvm", *words)
    with pytest.raises(ForeignError):
        stranger.create()
    Journal(stranger._journal.path).intend("vm", stranger.spec.uuid)
    with pytest.raises(ForeignError):
        stranger.destroy()
    assert stranger.spec.uuid in vbox.run("VBoxManage", "-q", "list", "vms").out
    vbox.run("VBoxManage", "-q", "unregistervm", stranger.spec.uuid)


def test_settings_lost_under_a_registered_machine(make: Make, client: Transport) -> None:
    machine = make()
    machine.create()
    shutil.rmtree(machine.spec.folder)
    machine.destroy()
    with pytest.raises(MissingError):
        client.call("settings", uuid=machine.spec.uuid)


def test_the_engine_tells_what_it_is(vbox: Instance, cache: Path) -> None:
    found = host.Installed(HOME, "7.2.22", (GLUE,))
    engine = VirtualBoxEngine(
        cache, dataclasses.replace(OPTIONS, python=str(vbox.python)), installed=lambda _home: found
    )
    assert engine.availability().usable
    facts = engine.facts()
    assert facts.version.startswith("7.2.") and facts.details["glue"].startswith(str(GLUE))
    assert (facts.details["transport"], facts.details["transport_why"]) == ("vboxapi", "its bindings load")
    assert (facts.acceleration, facts.nesting) == ("interpreter", "none")
    assert {finding.name for finding in engine.findings([])} >= {"version", "api", "driver", "cpu"}


def test_where_the_bindings_do_not_load_the_engine_goes_over_vboxmanage(vbox: Instance, cache: Path) -> None:
    """lab's own Python has no libraries of VirtualBox's."""
    found = host.Installed(vbox.home, "7.2.22", ())
    engine = VirtualBoxEngine(cache, OPTIONS, installed=lambda _home: found)
    assert engine.availability().usable
    details = engine.facts().details
    assert details["transport"] == "VBoxManage" and details["glue"] == str(vbox.home / "VBoxManage")
    assert details["transport_why"].startswith("VirtualBox's Python bindings cannot be loaded (No module")
    (api,) = [finding for finding in engine.findings([]) if finding.name == "api"]
    assert api.good and details["transport_why"] in api.observed
    asked = VirtualBoxEngine(
        cache, dataclasses.replace(OPTIONS, transport="vboxapi"), installed=lambda _home: found
    )
    assert not asked.availability().usable and "bindings" in asked.availability().why


def test_a_wrong_path_is_explained(make: Make, tmp_path: Path) -> None:
    machine = make(seed=tmp_path / "no.iso")
    with pytest.raises(LabError):
        machine.create()
    started = time.monotonic()
    assert machine.status() in (State.STOPPED, State.ABSENT)
    assert time.monotonic() - started < 30

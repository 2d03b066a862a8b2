"""The engine on the real VirtualBox 7.2, where something goes wrong, or is somebody else's."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bootsector import Heart
from vboxbench import (
    GLUE,
    HOME,
    OPTIONS,
    Make,
    again,
    in_a_process_of_its_own,
    kill,
    kill_a_holder,
    started,
    suspended,
)

from lab.core.deadline import Deadline, poll
from lab.core.errors import BusyError, LabError
from lab.core.journal import Journal
from lab.engines.protocol import State
from lab.engines.virtualbox import host
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.engine import VirtualBoxEngine
from lab.engines.virtualbox.transport import ForeignError, MissingError, Transport
from lab.engines.virtualbox.vm import vm_processes
from tests.integration.vboxroot import Instance

pytestmark = pytest.mark.slow


def test_a_deaf_guest_is_stopped_by_force(make_vbox: Make) -> None:
    machine = started(make_vbox(polite=False))
    assert machine.stop(Deadline.after(2)) == "forced"
    assert machine.status() is State.STOPPED


def test_a_killed_vm_process_is_a_stopped_machine(make_vbox: Make) -> None:
    machine = started(make_vbox())
    (process,) = vm_processes(machine.spec.uuid)
    process.kill()
    poll(lambda: machine.status() is State.STOPPED or None, Deadline.after(30), "Aborted", every=0.1)
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot"), "what the guest had not flushed may be gone, but it boots"


def test_the_death_of_vboxsvc_is_survived(make_vbox: Make, vbox: Instance) -> None:
    machine = started(make_vbox())
    kill(vbox, "VBoxSVC")
    assert machine.status() in (State.STOPPED, State.RUNNING), "the worker came back by itself"
    poll(lambda: machine.status() is State.STOPPED or None, Deadline.after(60), "the VM's end", every=0.5)
    machine.start([])  # waits for the process that lost its VBoxSVC
    Heart.wait(machine)
    assert len(vm_processes(machine.spec.uuid)) == 1
    kill(vbox, "VBoxSVC")
    machine.destroy()
    assert not machine.spec.folder.exists()


def test_a_holder_killed_in_mid_lock_leaves_nothing_locked(make_vbox: Make, vbox: Instance) -> None:
    machine = make_vbox()
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
    make_vbox: Make, vbox: Instance
) -> None:
    """A holder that is killed makes Saved AbortedSaved: the memory is whole, and is resumed."""
    machine = started(make_vbox())
    machine.snapshot("live")
    suspended(machine)
    boots = Heart.numbers(machine, "boot")[-1]
    kill_a_holder(machine, vbox)
    assert machine._vm.look()["state"] == "AbortedSaved"
    assert machine.status() is State.SUSPENDED
    machine.resume([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot")[-1:] in ([], [boots]), "it did not boot anew"
    for aborted in (False, True):
        suspended(machine)
        if aborted:
            kill_a_holder(machine, vbox)
        machine.restore("live", [])
        assert machine.status() is State.RUNNING
        Heart.wait(machine)


def test_nat_is_kept_from_the_hosts_loopback(make_vbox: Make, vbox: Instance) -> None:
    machine = make_vbox()
    machine.create()
    code = (
        "from lab.engines.virtualbox.worker.api import Api\n"
        f"api = Api(); machine = api.find({machine.spec.uuid!r})\n"
        "with api.locked(machine, 'write') as session:\n"
        "    session.machine.get_network_adapter(0).nat_engine._i.localhostReachable = True\n"
        "    session.machine.save_settings()\n"
    )
    in_a_process_of_its_own(vbox, code).wait(60)
    assert machine.settings()["host_loopback"] == "within reach"
    machine.create()  # converges
    assert machine.settings()["host_loopback"] == "out of reach"


def test_two_processes_see_one_machine(make_vbox: Make, vbox_transport: Callable[[], Transport]) -> None:
    other = vbox_transport()
    try:
        machine = started(make_vbox())
        seen = again(machine, other)
        assert seen.status() is State.RUNNING
        suspended(seen)
        assert machine.status() is State.SUSPENDED
    finally:
        other.close()


def test_a_cut_creation_is_gone_on_with(make_vbox: Make, vbox_client: Transport) -> None:
    machine = make_vbox()
    machine.create()
    settings = machine.spec.folder / "lab.vbox"
    # As if killed before it was registered: the settings file is there, VirtualBox does not know it.
    kept = settings.read_bytes()
    machine_again = make_vbox(folder="other", uuid=machine.spec.uuid)
    vbox_client.call(
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
    started(machine)
    del machine_again


def test_labs_on_one_base_go_in_either_order_and_the_base_stays(make_vbox: Make, vbox_cache: Path) -> None:
    for first, second in ((0, 1), (1, 0)):
        pair = [make_vbox(folder="a"), make_vbox(folder="b")]
        for machine in pair:
            machine.create()
        (base,) = [path for path in (vbox_cache / "virtualbox").glob("*.vdi") if "False" in path.name]
        before = base.read_bytes()
        pair[first].destroy()
        assert base.exists()
        started(pair[second])
        pair[second].destroy()
        assert base.read_bytes() == before
        assert not any(machine.spec.folder.exists() for machine in pair)


def test_a_foreign_disk_and_iso_survive(make_vbox: Make, vbox: Instance, tmp_path: Path) -> None:
    machine = make_vbox()
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
    make_vbox: Make, vbox: Instance, tmp_path: Path
) -> None:
    machine = make_vbox()
    name = f"lab-test-{machine.spec.uuid[:8]}"
    words = ["--name", name, "--ostype", "Other", "--register", "--basefolder", tmp_path / "theirs"]
    vbox.run("VBoxManage", "-q", "createvm", *words)
    started(machine)
    machine.destroy()
    assert f'"{name}"' in vbox.run("VBoxManage", "-q", "list", "vms").out
    theirs = tmp_path / "theirs" / name / f"{name}.vbox"
    assert theirs.exists()

    stranger = make_vbox()
    words = [*words[:1], "stranger", *words[2:], "--uuid", stranger.spec.uuid]
    vbox.run("VBoxManage", "-q", "createvm", *words)
    with pytest.raises(ForeignError):
        stranger.create()
    Journal(stranger._journal.path).intend("vm", stranger.spec.uuid)
    with pytest.raises(ForeignError):
        stranger.destroy()
    assert stranger.spec.uuid in vbox.run("VBoxManage", "-q", "list", "vms").out
    vbox.run("VBoxManage", "-q", "unregistervm", stranger.spec.uuid)


def test_settings_lost_under_a_registered_machine(make_vbox: Make, vbox_client: Transport) -> None:
    machine = make_vbox()
    machine.create()
    shutil.rmtree(machine.spec.folder)
    machine.destroy()
    with pytest.raises(MissingError):
        vbox_client.call("settings", uuid=machine.spec.uuid)


def test_the_engine_tells_what_it_is(vbox: Instance, vbox_cache: Path) -> None:
    found = host.Installed(HOME, "7.2.22", (GLUE,))
    engine = VirtualBoxEngine(
        vbox_cache, dataclasses.replace(OPTIONS, python=str(vbox.python)), installed=lambda _home: found
    )
    assert engine.availability().usable
    facts = engine.facts()
    assert facts.version.startswith("7.2.") and facts.details["glue"].startswith(str(GLUE))
    assert (facts.details["transport"], facts.details["transport_why"]) == ("vboxapi", "its bindings load")
    assert (facts.acceleration, facts.nesting) == ("interpreter", "none")
    assert {finding.name for finding in engine.findings([])} >= {"version", "api", "driver", "cpu"}


def test_where_the_bindings_do_not_load_the_engine_goes_over_vboxmanage(
    vbox: Instance, vbox_cache: Path
) -> None:
    """lab's own Python has no libraries of VirtualBox's."""
    found = host.Installed(vbox.home, "7.2.22", ())
    engine = VirtualBoxEngine(vbox_cache, OPTIONS, installed=lambda _home: found)
    assert engine.availability().usable
    details = engine.facts().details
    assert details["transport"] == "VBoxManage" and details["glue"] == str(vbox.home / "VBoxManage")
    assert details["transport_why"].startswith("VirtualBox's Python bindings cannot be loaded (No module")
    (api,) = [finding for finding in engine.findings([]) if finding.name == "api"]
    assert api.good and details["transport_why"] in api.observed
    asked = VirtualBoxEngine(
        vbox_cache, dataclasses.replace(OPTIONS, transport="vboxapi"), installed=lambda _home: found
    )
    assert not asked.availability().usable and "bindings" in asked.availability().why


def test_a_wrong_path_is_explained(make_vbox: Make, tmp_path: Path) -> None:
    machine = make_vbox(seed=tmp_path / "no.iso")
    with pytest.raises(LabError):
        machine.create()
    started = time.monotonic()
    assert machine.status() in (State.STOPPED, State.ABSENT)
    assert time.monotonic() - started < 30

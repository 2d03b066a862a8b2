"""The engine on the real VirtualBox 7.2: power, forwards, saved states."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest
from bootsector import Heart, free_port
from vboxbench import (
    Make,
    again,
    started,
    suspended,
)

from lab.core.deadline import Deadline, poll
from lab.core.errors import UsageError
from lab.core.journal import Journal
from lab.engines.protocol import Forward, NestingRefusedError, PortTakenError, State
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.transport import Transport
from lab.engines.virtualbox.vm import vm_processes
from tests.integration.vboxroot import Instance

pytestmark = pytest.mark.slow


def test_a_machine_from_nothing_to_nothing(make_vbox: Make, vbox_client: Transport, tmp_path: Path) -> None:
    machine = make_vbox(polite=True)
    assert machine.status() is State.ABSENT
    assert machine.stop(Deadline.after(1)) == "already"
    started(machine)
    assert machine.status() is State.RUNNING
    machine.start([])  # nothing to do
    assert again(machine, vbox_client).status() is State.RUNNING
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


def test_what_was_set_is_read_back_and_the_log_says_what_ran(make_vbox: Make) -> None:
    machine = make_vbox(cpus=2, memory_mib=96, paravirt="kvm")
    started(machine)
    found = machine.settings()
    assert (found["cpus"], found["memory_mib"], found["nested"]) == ("2", "96", "off")
    assert (found["paravirt"], found["nested_paging"]) == ("kvm", "on")
    assert (found["acceleration"], found["execution_engine"]) == ("interpreter", "interpreter")
    assert found["uuid"] == machine.spec.uuid and found["version"].startswith("7.2.")
    assert machine.logs()[0].name.startswith("VBox") or machine.logs()[-1].name == "lab.vbox"


def test_nesting_that_virtualbox_refuses_is_said_as_such(make_vbox: Make) -> None:
    machine = make_vbox(nested=True)
    machine.create()
    assert machine.settings()["nested"] == "on", "accepted"
    with pytest.raises(NestingRefusedError) as caught:
        machine.start([])
    assert "VERR_CPUM_INVALID_HWVIRT_CONFIG" in caught.value.tail
    assert machine.status() is State.STOPPED


def test_forwards_listen_on_the_loopback_only(make_vbox: Make) -> None:
    wanted = [Forward("ssh", free_port(), 22), Forward("adb", free_port(), 5555)]
    machine = started(make_vbox(), *wanted)
    assert sorted(machine.forwards(), key=lambda item: item.name) == sorted(
        wanted, key=lambda item: item.name
    )
    (process,) = vm_processes(machine.spec.uuid)
    listening = [item.laddr for item in process.net_connections("inet") if item.status == psutil.CONN_LISTEN]
    assert sorted(port for _, port in listening) == sorted(item.host_port for item in wanted)
    assert {address for address, _ in listening} == {"127.0.0.1"}
    with socket.create_connection(("127.0.0.1", wanted[0].host_port), 5):
        pass


def test_forwards_come_and_go_while_it_runs(make_vbox: Make, vbox_client: Transport) -> None:
    first, added = Forward("ssh", free_port(), 22), Forward("adb-second", free_port(), 5655)
    machine = make_vbox()
    with pytest.raises(UsageError, match="does not run"):
        machine.add_forward(added)
    machine.remove_forward("adb-second")
    started(machine, first)
    other = again(machine, vbox_client)
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
    suspended(machine)
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


def test_a_taken_port_is_named_and_nothing_runs(make_vbox: Make) -> None:
    machine = make_vbox()
    machine.create()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            machine.start([Forward("ssh", port, 22)])
    assert caught.value.ports == [port]
    assert machine.status() is State.STOPPED
    machine.start([Forward("ssh", port, 22)])
    assert machine.forwards() == [Forward("ssh", port, 22)]


def test_a_suspended_machine_goes_on_where_it_was_on_other_ports(
    make_vbox: Make, vbox_client: Transport
) -> None:
    machine = started(make_vbox(), Forward("ssh", free_port(), 22))
    suspended(machine)
    assert machine.status() is State.SUSPENDED
    machine.suspend()  # no-op
    assert not vm_processes(machine.spec.uuid)
    before = Heart.numbers(machine, "beat")[-1]
    port = free_port()
    again(machine, vbox_client).resume([Forward("ssh", port, 22)])
    Heart.wait(machine)
    assert Heart.numbers(machine, "beat")[-1] > before and Heart.numbers(machine, "boot") == [], (
        "it did not boot anew"
    )
    assert "boot 0001" in machine._layout.console_before.read_text(), "what it wrote before is kept"
    assert machine.forwards() == [Forward("ssh", port, 22)]
    with pytest.raises(UsageError, match="not suspended"):
        machine.stop(Deadline.after(0))
        machine.resume([])


def test_a_paused_machine_runs_on(make_vbox: Make, vbox: Instance) -> None:
    machine = started(make_vbox())
    vbox.run("VBoxManage", "controlvm", machine.spec.uuid, "pause")
    assert machine.status() is State.PAUSED
    machine.resume([])
    Heart.wait(machine)
    assert machine.status() is State.RUNNING


def test_live_and_offline_snapshots(make_vbox: Make) -> None:
    machine = started(make_vbox())
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


def test_a_screenshot_is_a_png(make_vbox: Make, tmp_path: Path) -> None:
    machine = make_vbox()
    machine.create()
    with pytest.raises(UsageError, match="no screen"):
        machine.screenshot(tmp_path / "early.png")
    started(machine)
    machine.screenshot(tmp_path / "screen.png")
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG\r\n")

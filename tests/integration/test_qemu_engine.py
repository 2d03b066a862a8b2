"""The QEMU engine with a real QEMU: power, forwards, saved states."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
from pathlib import Path

import psutil
import pytest
from bootsector import Heart, free_port
from qemubench import ENGINE, Make, again, processes, started, words

from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.core.journal import Journal
from lab.engines.protocol import Forward, PortTakenError, State
from lab.engines.qemu.machine import QemuMachine
from lab.engines.qemu.network import is_apart

pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"), reason="needs QEMU"
)


def test_a_machine_from_nothing_to_nothing(make_qemu: Make, tmp_path: Path) -> None:
    machine = make_qemu(polite=True)
    assert machine.status() is State.ABSENT
    machine.create()
    inode = machine._layout.disk.stat().st_ino
    machine.create()
    assert machine._layout.disk.stat().st_ino == inode
    assert machine.status() is State.STOPPED

    forward = Forward("ssh", free_port(), 22)
    machine.start([forward])
    Heart.wait(machine)
    other = again(machine)
    other.start([])  # already runs: nothing happens
    assert other.status() is State.RUNNING
    assert other.forwards() == [forward]
    assert len(processes(machine)) == 1

    assert other.stop(Deadline.after(30)) == "graceful"
    assert other.stop(Deadline.after(1)) == "already"
    assert machine.status() is State.STOPPED
    assert machine.forwards() == [] and machine.settings() == {}

    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2]  # the disk and the console log were kept
    machine.destroy()
    assert not machine.spec.folder.exists()
    assert processes(machine) == []
    assert Journal(tmp_path / "journal.jsonl").entries() == []
    machine.destroy()
    assert machine.status() is State.ABSENT


def test_what_qemu_set_is_read_back(make_qemu: Make) -> None:
    machine = started(make_qemu(cpus=2, nested=True))
    told = machine.settings()
    assert told["cpus"] == "2" and told["memory_mib"] == "64"
    assert told["nested"] == "on" and told["nested_extension"] == "svm"
    assert told["acceleration"] == "tcg" and told["paravirt"] == "none"
    assert told["uuid"] == machine.spec.uuid

    plain = started(make_qemu(folder="plain", nested=False))
    assert plain.settings()["nested"] == "off"


def test_forwards_listen_on_the_loopback_only(make_qemu: Make) -> None:
    machine = started(make_qemu(), Forward("ssh", free_port(), 22), Forward("adb", free_port(), 5555))
    forwards = machine.forwards()
    assert len(forwards) == 2
    assert _listening(machine) == {("127.0.0.1", item.host_port) for item in forwards}


def _listening(machine: QemuMachine) -> set[tuple[str, int]]:
    """Where the machine's processes listen on the host: QEMU's own, or those of its slirp4netns."""
    places = [item for item in processes(machine) if not is_apart(item.pid)]
    places += [
        item for item in psutil.process_iter() if f"--api-socket={machine._layout.network}" in words(item)
    ]
    found = [item for place in places for item in place.net_connections("inet")]
    return {(item.laddr.ip, item.laddr.port) for item in found if item.status == psutil.CONN_LISTEN}


def test_forwards_come_and_go_while_it_runs(make_qemu: Make) -> None:
    first, added = Forward("ssh", free_port(), 22), Forward("adb-second", free_port(), 5655)
    machine = make_qemu()
    with pytest.raises(UsageError, match="does not run"):
        machine.add_forward(added)
    machine.remove_forward("adb-second")
    started(machine, first)
    other = again(machine)
    for _ in range(2):
        other.add_forward(added)
    assert machine.forwards() == other.forwards() == [first, added]
    assert _listening(machine) == {("127.0.0.1", first.host_port), ("127.0.0.1", added.host_port)}
    with socket.create_connection(("127.0.0.1", added.host_port), 5):
        pass

    moved = Forward("adb-second", free_port(), 5655)
    machine.add_forward(moved)
    assert other.forwards() == [first, moved]
    assert _listening(machine) == {("127.0.0.1", first.host_port), ("127.0.0.1", moved.host_port)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            machine.add_forward(Forward("novnc-second", port, 6180))
    assert caught.value.ports == [port] and "forward" in caught.value.tail
    assert machine.forwards() == [first, moved]

    machine._layout.process.unlink()  # as after a crash: the names are in the journal, too
    assert other.forwards() == [first, moved]
    other.remove_forward("adb-second")
    other.remove_forward("adb-second")
    assert machine.forwards() == [first]
    assert _listening(machine) == {("127.0.0.1", first.host_port)}
    machine.add_forward(added)
    machine.snapshot("two")
    machine.suspend()
    assert machine.forwards() == []
    machine.resume([first, added])
    Heart.wait(machine)
    assert machine.forwards() == [first, added]
    machine.restore("two", [first, moved])
    assert machine.forwards() == [first, moved]


def test_taken_ports_are_named_and_nothing_runs(make_qemu: Make) -> None:
    machine = make_qemu()
    machine.create()
    with socket.socket() as first, socket.socket() as second:
        for holder in (first, second):
            holder.bind(("127.0.0.1", 0))
            holder.listen()
        taken = [holder.getsockname()[1] for holder in (first, second)]
        free = Forward("free", free_port(), 80)
        wanted = [free, Forward("ssh", taken[0], 22), Forward("adb", taken[1], 5555)]
        with pytest.raises(PortTakenError) as caught:
            machine.start(wanted)
    assert sorted(caught.value.ports) == sorted(taken)
    assert "host forwarding" in caught.value.tail
    assert machine.status() is State.STOPPED
    assert processes(machine) == []
    machine.start([free])
    assert machine.status() is State.RUNNING


def test_a_suspended_machine_goes_on_where_it_was(make_qemu: Make) -> None:
    machine = started(make_qemu())
    machine.suspend()
    machine.suspend()  # once more changes nothing
    assert again(machine).status() is State.SUSPENDED
    assert processes(machine) == []
    before = Heart.lines(machine)

    port = Forward("ssh", free_port(), 22)
    again(machine).resume([port])
    Heart.wait(machine)
    after = Heart.lines(machine)[len(before) :]
    assert Heart.numbers(machine, "boot") == [1]
    assert after[0][1] - before[-1][1] in (1, 2)  # one line may be cut in two by the suspension
    assert machine.forwards() == [port]
    assert machine.status() is State.RUNNING
    (running,) = processes(machine)
    os.kill(running.pid, signal.SIGKILL)
    assert machine.status() is State.STOPPED  # the memory of the past is not offered again


def test_a_suspension_survives_a_failed_resume(make_qemu: Make) -> None:
    machine = started(make_qemu())
    machine.suspend()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(PortTakenError):
            machine.resume([Forward("ssh", holder.getsockname()[1], 22)])
    assert machine.status() is State.SUSPENDED
    with pytest.raises(UsageError):
        machine.snapshot("now")
    machine.start([])  # start resumes: the memory is not thrown away
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1]


def _suspend_cut_short(machine: QemuMachine) -> None:
    """As far as `suspend` gets before it ends QEMU."""
    (running,) = processes(machine)
    with machine._launcher.monitor(running) as monitor:
        monitor.execute("stop")
        machine._saved.save_live(monitor, "lab:suspended", machine._running_hardware())


def test_a_suspend_cut_short_converges(make_qemu: Make) -> None:
    machine = started(make_qemu())
    _suspend_cut_short(machine)
    assert again(machine).status() is State.PAUSED
    machine.resume([])
    Heart.wait(machine)
    assert machine.status() is State.RUNNING
    _suspend_cut_short(machine)
    machine.stop(Deadline.after(0))
    assert machine.status() is State.STOPPED


def test_live_snapshots(make_qemu: Make) -> None:
    machine = started(make_qemu(memory_mib=64))
    machine.snapshot("warm up/1")
    taken = max(number for word, number in Heart.lines(machine) if word == "beat")
    with pytest.raises(UsageError):
        machine.snapshot("warm up/1")
    Heart.wait(machine, more=4)
    (snapshot,) = machine.snapshots()
    assert (snapshot.name, snapshot.live) == ("warm up/1", True)

    seen = len(Heart.lines(machine))
    bigger = dataclasses.replace(machine.spec, memory_mib=96)  # the state still needs its 64
    ENGINE.machine(bigger, machine._journal).restore("warm up/1", [])
    Heart.wait(machine)
    first = next(number for word, number in Heart.lines(machine)[seen:] if word == "beat")
    assert first <= taken + 2
    assert Heart.numbers(machine, "boot") == [1]
    assert machine.status() is State.RUNNING

    machine.stop(Deadline.after(0))
    assert again(machine).snapshots() == [snapshot]
    machine.restore("warm up/1", [])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1]
    with pytest.raises(UsageError) as caught:
        machine.restore("warm-up", [])
    assert "warm up/1" in caught.value.hint


def test_offline_snapshots(make_qemu: Make) -> None:
    machine = started(make_qemu())
    machine.stop(Deadline.after(0))
    machine.snapshot("1")
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2]
    machine.restore("1", [])  # while it runs
    assert machine.status() is State.STOPPED
    assert [item.live for item in machine.snapshots()] == [False]
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2, 2]  # the disk had counted one boot again


def test_a_screenshot_is_a_png(make_qemu: Make, tmp_path: Path) -> None:
    from PIL import Image

    machine = started(make_qemu())
    target = tmp_path / "shots" / "screen.png"
    machine.screenshot(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        image.load()
        grey = image.convert("L")
        assert grey.point(lambda level: 255 * (level > 100)).getbbox()  # the firmware's text is bright
    assert list(target.parent.iterdir()) == [target]

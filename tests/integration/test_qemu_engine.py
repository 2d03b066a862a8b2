"""The QEMU engine with a real QEMU: emulation, and a guest of one boot sector."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from bootsector import Heart, base_disk, free_port

from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, LabError, UsageError
from lab.core.journal import Journal
from lab.engines.protocol import DiskFullError, Forward, MachineSpec, PortTakenError, State, why_dead
from lab.engines.qemu.engine import QemuEngine
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.machine import QemuMachine
from lab.engines.qemu.network import is_apart

pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"), reason="needs QEMU"
)


def _no_kvm() -> None:
    raise AssertionError("KVM must not be probed under tcg")


ENGINE = QemuEngine(HostQemu(_no_kvm, "tcg"))  # type: ignore[arg-type]

Make = Callable[..., QemuMachine]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {polite: base_disk(folder / f"base-{polite}.qcow2", polite) for polite in (False, True)}


@pytest.fixture
def make(tmp_path: Path, bases: dict[bool, Path]) -> Iterator[Make]:
    """Makes machines; whatever they still run is ended by UUID, not by the code under test."""
    made: list[QemuMachine] = []
    seed = tmp_path / "seed.iso"
    seed.write_bytes(b"\0" * 65536)

    def build(polite: bool = False, folder: str = "engine", **changes: object) -> QemuMachine:
        spec = MachineSpec(
            uuid=str(uuid.uuid4()),
            name="test",
            folder=tmp_path / folder,
            base_disk=bases[polite],
            seed=seed,
            cpus=1,
            memory_mib=64,
            disk_gib=1,
        )
        spec = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
        made.append(ENGINE.machine(spec, Journal(tmp_path / "journal.jsonl")))
        return made[-1]

    yield build
    for machine in made:
        for running in _processes(machine):
            running.kill()
            running.wait(10)


def _processes(machine: QemuMachine) -> list[psutil.Process]:
    found = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = candidate.cmdline()
            if ("-uuid", machine.spec.uuid) in itertools.pairwise(argv) and "qemu" in argv[0]:
                found.append(candidate)
    return found


def _again(machine: QemuMachine) -> QemuMachine:
    """The same machine as another command sees it."""
    return ENGINE.machine(machine.spec, Journal(machine._journal.path))


def _started(machine: QemuMachine, *forwards: Forward) -> QemuMachine:
    machine.create()
    machine.start(forwards)
    Heart.wait(machine)
    return machine


def test_a_machine_from_nothing_to_nothing(make: Make, tmp_path: Path) -> None:
    machine = make(polite=True)
    assert machine.status() is State.ABSENT
    machine.create()
    inode = machine._layout.disk.stat().st_ino
    machine.create()
    assert machine._layout.disk.stat().st_ino == inode
    assert machine.status() is State.STOPPED

    forward = Forward("ssh", free_port(), 22)
    machine.start([forward])
    Heart.wait(machine)
    other = _again(machine)
    other.start([])  # already runs: nothing happens
    assert other.status() is State.RUNNING
    assert other.forwards() == [forward]
    assert len(_processes(machine)) == 1

    assert other.stop(Deadline.after(30)) == "graceful"
    assert other.stop(Deadline.after(1)) == "already"
    assert machine.status() is State.STOPPED
    assert machine.forwards() == [] and machine.settings() == {}

    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2]  # the disk and the console log were kept
    machine.destroy()
    assert not machine.spec.folder.exists()
    assert _processes(machine) == []
    assert Journal(tmp_path / "journal.jsonl").entries() == []
    machine.destroy()
    assert machine.status() is State.ABSENT


def test_what_qemu_set_is_read_back(make: Make) -> None:
    machine = _started(make(cpus=2, nested=True))
    told = machine.settings()
    assert told["cpus"] == "2" and told["memory_mib"] == "64"
    assert told["nested"] == "on" and told["nested_extension"] == "svm"
    assert told["acceleration"] == "tcg" and told["paravirt"] == "none"
    assert told["uuid"] == machine.spec.uuid

    plain = _started(make(folder="plain", nested=False))
    assert plain.settings()["nested"] == "off"


def test_forwards_listen_on_the_loopback_only(make: Make) -> None:
    machine = _started(make(), Forward("ssh", free_port(), 22), Forward("adb", free_port(), 5555))
    forwards = machine.forwards()
    assert len(forwards) == 2
    assert _listening(machine) == {("127.0.0.1", item.host_port) for item in forwards}


def _listening(machine: QemuMachine) -> set[tuple[str, int]]:
    """Where the machine's processes listen on the host: QEMU's own, or those of its slirp4netns."""
    places = [item for item in _processes(machine) if not is_apart(item.pid)]
    places += [
        item for item in psutil.process_iter() if f"--api-socket={machine._layout.network}" in _words(item)
    ]
    found = [item for place in places for item in place.net_connections("inet")]
    return {(item.laddr.ip, item.laddr.port) for item in found if item.status == psutil.CONN_LISTEN}


def _words(candidate: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(candidate.cmdline())
    return []


def test_forwards_come_and_go_while_it_runs(make: Make) -> None:
    first, added = Forward("ssh", free_port(), 22), Forward("adb-second", free_port(), 5655)
    machine = make()
    with pytest.raises(UsageError, match="does not run"):
        machine.add_forward(added)
    machine.remove_forward("adb-second")
    _started(machine, first)
    other = _again(machine)
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


def test_taken_ports_are_named_and_nothing_runs(make: Make) -> None:
    machine = make()
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
    assert _processes(machine) == []
    machine.start([free])
    assert machine.status() is State.RUNNING


def test_a_suspended_machine_goes_on_where_it_was(make: Make) -> None:
    machine = _started(make())
    machine.suspend()
    machine.suspend()  # once more changes nothing
    assert _again(machine).status() is State.SUSPENDED
    assert _processes(machine) == []
    before = Heart.lines(machine)

    port = Forward("ssh", free_port(), 22)
    _again(machine).resume([port])
    Heart.wait(machine)
    after = Heart.lines(machine)[len(before) :]
    assert Heart.numbers(machine, "boot") == [1]
    assert after[0][1] - before[-1][1] in (1, 2)  # one line may be cut in two by the suspension
    assert machine.forwards() == [port]
    assert machine.status() is State.RUNNING
    (running,) = _processes(machine)
    os.kill(running.pid, signal.SIGKILL)
    assert machine.status() is State.STOPPED  # the memory of the past is not offered again


def test_a_suspension_survives_a_failed_resume(make: Make) -> None:
    machine = _started(make())
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
    (running,) = _processes(machine)
    with machine._launcher.monitor(running) as monitor:
        monitor.execute("stop")
        machine._saved.save_live(monitor, "lab:suspended", machine._running_hardware())


def test_a_suspend_cut_short_converges(make: Make) -> None:
    machine = _started(make())
    _suspend_cut_short(machine)
    assert _again(machine).status() is State.PAUSED
    machine.resume([])
    Heart.wait(machine)
    assert machine.status() is State.RUNNING
    _suspend_cut_short(machine)
    machine.stop(Deadline.after(0))
    assert machine.status() is State.STOPPED


def test_live_snapshots(make: Make) -> None:
    machine = _started(make(memory_mib=64))
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
    assert _again(machine).snapshots() == [snapshot]
    machine.restore("warm up/1", [])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1]
    with pytest.raises(UsageError) as caught:
        machine.restore("warm-up", [])
    assert "warm up/1" in caught.value.hint


def test_offline_snapshots(make: Make) -> None:
    machine = _started(make())
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


def test_a_screenshot_is_a_png(make: Make, tmp_path: Path) -> None:
    from PIL import Image

    machine = _started(make())
    target = tmp_path / "shots" / "screen.png"
    machine.screenshot(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        image.load()
        grey = image.convert("L")
        assert grey.point(lambda level: 255 * (level > 100)).getbbox()  # the firmware's text is bright
    assert list(target.parent.iterdir()) == [target]


def test_a_deaf_guest_is_stopped_by_force(make: Make) -> None:
    machine = _started(make(polite=False))
    assert machine.stop(Deadline.after(2)) == "forced"
    assert _processes(machine) == []
    assert machine.status() is State.STOPPED


def test_a_process_that_does_not_answer_is_stopped_by_force(make: Make) -> None:
    machine = _started(make(polite=True))
    (running,) = _processes(machine)
    running.suspend()
    machine.destroy()
    assert _processes(machine) == []
    assert not machine.spec.folder.exists()


def test_a_killed_qemu_is_a_stopped_machine(make: Make) -> None:
    machine = _started(make())
    (running,) = _processes(machine)
    os.kill(running.pid, signal.SIGKILL)
    assert machine.status() is State.STOPPED
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2]


def test_a_crash_before_the_record_was_written(make: Make) -> None:
    forward = Forward("ssh", free_port(), 22)
    machine = _started(make(), forward)
    machine._layout.process.unlink()
    other = _again(machine)
    assert other.status() is State.RUNNING
    assert other.forwards() == [forward]
    other.suspend()
    assert other.status() is State.SUSPENDED
    other.destroy()
    assert not machine.spec.folder.exists()


@pytest.mark.parametrize("copies_uuid", [False, True])
def test_a_foreign_process_with_the_pid_is_never_touched(make: Make, copies_uuid: bool) -> None:
    machine = _started(make())
    machine.stop(Deadline.after(0))
    extra = ["-uuid", machine.spec.uuid] if copies_uuid else []
    code = "import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code, *extra]) as stranger:
        try:
            created = psutil.Process(stranger.pid).create_time()
            record = {"pid": stranger.pid, "created": created, "uuid": machine.spec.uuid}
            machine._layout.process.write_text(json.dumps(record))
            assert machine.status() is State.STOPPED
            assert machine.stop(Deadline.after(5)) == "already"
            machine._layout.process.write_text(json.dumps(record))
            machine.destroy()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_destroy_leaves_what_others_put_there(make: Make) -> None:
    machine = _started(make())
    theirs = machine.spec.folder / "notes.txt"
    theirs.write_text("mine")
    machine.destroy()
    assert [path.name for path in machine.spec.folder.iterdir()] == ["notes.txt"]


def test_a_deep_folder_gets_a_short_socket(make: Make) -> None:
    machine = _started(make(folder="/".join(["deep,folder" * 3] * 5)))
    control = machine._layout.socket
    assert control.parent != machine.spec.folder
    assert control.parent.stat().st_mode & 0o077 == 0
    assert machine.status() is State.RUNNING
    machine.destroy()
    assert not control.parent.exists()


def test_half_made_disks_and_bad_specs(make: Make, tmp_path: Path) -> None:
    machine = make()
    machine.spec.folder.mkdir()
    machine._layout.disk_part.write_bytes(b"torn")
    with pytest.raises(LabError):
        machine.start([])
    machine.create()
    assert machine.status() is State.STOPPED and not machine._layout.disk_part.exists()

    moved = dataclasses.replace(machine.spec, base_disk=base_disk(tmp_path / "other.qcow2"))
    with pytest.raises(UsageError, match="was made on"):
        ENGINE.machine(moved, machine._journal).create()
    with pytest.raises(BlockedError, match="missing"):
        make(folder="lost", base_disk=tmp_path / "none.qcow2").create()
    with pytest.raises(UsageError, match="smaller"):
        make(folder="small", disk_gib=0).create()


def test_qemus_own_words_explain_a_failed_start(make: Make) -> None:
    machine = make(cpus=100_000)
    machine.create()
    with pytest.raises(LabError) as caught:
        machine.start([])
    assert "CPU" in caught.value.tail
    assert machine.status() is State.STOPPED
    assert machine.logs() == [machine._layout.log]


@pytest.mark.parametrize("script", [False, True])
def test_a_qemu_of_another_name_is_found_again_and_ended(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bool
) -> None:
    """By its own path, such as /usr/libexec/qemu-kvm, or started by a script that makes way for it."""
    real = shutil.which("qemu-system-x86_64")
    program = tmp_path / "emulator-of-mine"
    if script:
        program.write_text(f'#!/bin/bash\nexec -a hypervisor {real} "$@"\n')
        program.chmod(0o755)
    else:
        program.symlink_to(str(real))
    engine = QemuEngine(HostQemu(_no_kvm, "tcg", binary=str(program)))  # type: ignore[arg-type]

    def other() -> QemuMachine:
        return engine.machine(plain.spec, Journal(plain._journal.path))

    plain = make()
    other().create()
    with socket.create_server(("127.0.0.1", 0)) as holder, pytest.raises(PortTakenError):
        other().start([Forward("ssh", holder.getsockname()[1], 22)])
    assert other().status() is State.STOPPED
    other().start([])
    Heart.wait(plain)
    assert other().status() is State.RUNNING
    (running,) = _with_uuid(plain)
    plain._layout.process.unlink()  # as after a crash: what it is called is in the journal, too
    assert other().status() is State.RUNNING
    other().destroy()
    assert not running.is_running() and _with_uuid(plain) == []


def _with_uuid(machine: QemuMachine) -> list[psutil.Process]:
    """Whatever has the machine's UUID among its arguments, whatever it is called."""
    found = []
    for candidate in psutil.process_iter():
        if ("-uuid", machine.spec.uuid) in itertools.pairwise(_words(candidate)):
            found.append(candidate)
    return found


def test_a_failed_start_of_a_qemu_of_another_name_ends(make: Make, tmp_path: Path) -> None:
    """It runs and never answers: it is ended, and the start does not wait for it for ever."""
    program = tmp_path / "emulator-of-mine"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *query* | *stdio*) exec qemu-system-x86_64 "$@" ;; *--version*) '
        "exec qemu-system-x86_64 --version ;; esac\nexec tail -f /dev/null\n"
    )
    program.chmod(0o755)
    engine = QemuEngine(HostQemu(_no_kvm, "tcg", binary=str(program), start_seconds=1.0))  # type: ignore[arg-type]
    plain = make()
    machine = engine.machine(plain.spec, Journal(plain._journal.path))
    machine.create()
    with pytest.raises(LabError):
        machine.start([])
    assert machine.status() is State.STOPPED


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system of its own."""
    folder = tmp_path / "narrow"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False).returncode != 0:
        pytest.skip("needs root, to make a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_not_resumed_into(make: Make, narrow: Path) -> None:
    machine = make(folder=str(narrow / "vm"))
    machine.create()
    filler = narrow / "filler"
    room = shutil.disk_usage(narrow).free - (256 << 10)
    filler.write_bytes(b"\1" * room)
    machine.start([])
    rest = os.open(narrow / "rest", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while True:
            os.write(rest, b"\1" * 4096)
    os.close(rest)
    poll(lambda: machine.status() is State.DISK_FULL or None, Deadline.after(30), "the full disk")
    assert str(machine.spec.folder) in str(why_dead(machine))
    for begin in (machine.resume, machine.start):
        with pytest.raises(DiskFullError) as caught:
            begin([])
        assert caught.value.evidence == [str(machine.spec.folder)]
    assert machine.status() is State.DISK_FULL
    filler.unlink()
    (narrow / "rest").unlink()
    machine.resume([])
    Heart.wait(machine)
    assert machine.status() is State.RUNNING
    machine.destroy()


def test_a_restore_that_fails_leaves_the_suspended_memory(make: Make) -> None:
    machine = _started(make())
    machine.snapshot("warm")
    machine.suspend()
    with socket.create_server(("127.0.0.1", 0)) as holder, pytest.raises(PortTakenError):
        machine.restore("warm", [Forward("ssh", holder.getsockname()[1], 22)])
    assert machine.status() is State.SUSPENDED
    machine.resume([])
    Heart.wait(machine)
    machine.suspend()
    machine.restore("warm", [])
    Heart.wait(machine)
    machine.stop(Deadline.after(0))
    assert machine.status() is State.STOPPED, "what was suspended is given up once the snapshot runs"
    assert Heart.numbers(machine, "boot") == [1]


def test_the_engine_tells_what_it_is() -> None:
    available = ENGINE.availability()
    assert available.usable, available.why
    facts = ENGINE.facts()
    assert facts.acceleration == "tcg" and facts.nesting == "emulated"
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts.version)
    assert re.fullmatch(r"pc-q35-[\d.]+", facts.details["machine"])
    absent = QemuEngine(HostQemu(_no_kvm, "tcg", binary="qemu-system-nowhere"))  # type: ignore[arg-type]
    assert not absent.availability().usable and "qemu-system-nowhere" in absent.availability().why

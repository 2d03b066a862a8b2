"""The QEMU engine with a real QEMU, where something goes wrong: crashes, strangers, a full disk."""

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
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bootsector import Heart, base_disk, free_port
from qemubench import ENGINE, Make, again, no_kvm, processes, started, words

from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, LabError, UsageError
from lab.core.journal import Journal
from lab.engines.protocol import DiskFullError, Forward, PortTakenError, State, why_dead
from lab.engines.qemu.engine import QemuEngine
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.machine import QemuMachine

pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"), reason="needs QEMU"
)


def test_a_deaf_guest_is_stopped_by_force(make_qemu: Make) -> None:
    machine = started(make_qemu(polite=False))
    assert machine.stop(Deadline.after(2)) == "forced"
    assert processes(machine) == []
    assert machine.status() is State.STOPPED


def test_a_process_that_does_not_answer_is_stopped_by_force(make_qemu: Make) -> None:
    machine = started(make_qemu(polite=True))
    (running,) = processes(machine)
    running.suspend()
    machine.destroy()
    assert processes(machine) == []
    assert not machine.spec.folder.exists()


def test_a_killed_qemu_is_a_stopped_machine(make_qemu: Make) -> None:
    machine = started(make_qemu())
    (running,) = processes(machine)
    os.kill(running.pid, signal.SIGKILL)
    assert machine.status() is State.STOPPED
    machine.start([])
    Heart.wait(machine)
    assert Heart.numbers(machine, "boot") == [1, 2]


def test_a_crash_before_the_record_was_written(make_qemu: Make) -> None:
    forward = Forward("ssh", free_port(), 22)
    machine = started(make_qemu(), forward)
    machine._layout.process.unlink()
    other = again(machine)
    assert other.status() is State.RUNNING
    assert other.forwards() == [forward]
    other.suspend()
    assert other.status() is State.SUSPENDED
    other.destroy()
    assert not machine.spec.folder.exists()


@pytest.mark.parametrize("copies_uuid", [False, True])
def test_a_foreign_process_with_the_pid_is_never_touched(make_qemu: Make, copies_uuid: bool) -> None:
    machine = started(make_qemu())
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


def test_destroy_leaves_what_others_put_there(make_qemu: Make) -> None:
    machine = started(make_qemu())
    theirs = machine.spec.folder / "notes.txt"
    theirs.write_text("mine")
    machine.destroy()
    assert [path.name for path in machine.spec.folder.iterdir()] == ["notes.txt"]


def test_a_deep_folder_gets_a_short_socket(make_qemu: Make) -> None:
    machine = started(make_qemu(folder="/".join(["deep,folder" * 3] * 5)))
    control = machine._layout.socket
    assert control.parent != machine.spec.folder
    assert control.parent.stat().st_mode & 0o077 == 0
    assert machine.status() is State.RUNNING
    machine.destroy()
    assert not control.parent.exists()


def test_half_made_disks_and_bad_specs(make_qemu: Make, tmp_path: Path) -> None:
    machine = make_qemu()
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
        make_qemu(folder="lost", base_disk=tmp_path / "none.qcow2").create()
    with pytest.raises(UsageError, match="smaller"):
        make_qemu(folder="small", disk_gib=0).create()


def test_qemus_own_words_explain_a_failed_start(make_qemu: Make) -> None:
    machine = make_qemu(cpus=100_000)
    machine.create()
    with pytest.raises(LabError) as caught:
        machine.start([])
    assert "CPU" in caught.value.tail
    assert machine.status() is State.STOPPED
    assert machine.logs() == [machine._layout.log]


@pytest.mark.parametrize("script", [False, True])
def test_a_qemu_of_another_name_is_found_again_and_ended(
    make_qemu: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bool
) -> None:
    """By its own path, such as /usr/libexec/qemu-kvm, or started by a script that makes way for it."""
    real = shutil.which("qemu-system-x86_64")
    program = tmp_path / "emulator-of-mine"
    if script:
        program.write_text(f'#!/bin/bash\nexec -a hypervisor {real} "$@"\n')
        program.chmod(0o755)
    else:
        program.symlink_to(str(real))
    engine = QemuEngine(HostQemu(no_kvm, "tcg", binary=str(program)))  # type: ignore[arg-type]

    def other() -> QemuMachine:
        return engine.machine(plain.spec, Journal(plain._journal.path))

    plain = make_qemu()
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
        if ("-uuid", machine.spec.uuid) in itertools.pairwise(words(candidate)):
            found.append(candidate)
    return found


def test_a_failed_start_of_a_qemu_of_another_name_ends(make_qemu: Make, tmp_path: Path) -> None:
    """It runs and never answers: it is ended, and the start does not wait for it for ever."""
    program = tmp_path / "emulator-of-mine"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *query* | *stdio*) exec qemu-system-x86_64 "$@" ;; *--version*) '
        "exec qemu-system-x86_64 --version ;; esac\nexec tail -f /dev/null\n"
    )
    program.chmod(0o755)
    engine = QemuEngine(HostQemu(no_kvm, "tcg", binary=str(program), start_seconds=1.0))  # type: ignore[arg-type]
    plain = make_qemu()
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


def test_a_full_disk_is_told_and_not_resumed_into(make_qemu: Make, narrow: Path) -> None:
    machine = make_qemu(folder=str(narrow / "vm"))
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


def test_a_restore_that_fails_leaves_the_suspended_memory(make_qemu: Make) -> None:
    machine = started(make_qemu())
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
    absent = QemuEngine(HostQemu(no_kvm, "tcg", binary="qemu-system-nowhere"))  # type: ignore[arg-type]
    assert not absent.availability().usable and "qemu-system-nowhere" in absent.availability().why

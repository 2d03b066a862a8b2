"""Which process is a machine's, and what is remembered of its start."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.core.deadline import Deadline, poll
from lab.engines.protocol import Forward
from lab.engines.qemu import process
from lab.engines.qemu.command import Hardware

UUID = "5b0b2f4e-7a52-4e0f-9d3d-3f0c7d0d8a11"
LAUNCH = process.QemuLaunch(
    Hardware("q35", "tcg", "max", 1, 64), [Forward("ssh", 2222, 22)], Path("/s/q.sock")
)


def test_a_launch_round_trips() -> None:
    assert process.QemuLaunch.from_json(LAUNCH.to_json()) == LAUNCH


def test_an_earlier_versions_launch_is_read() -> None:
    value = LAUNCH.to_json()
    del value["network"], value["binary"]
    assert process.QemuLaunch.from_json(value) == LAUNCH
    apart = replace(LAUNCH, network=Path("/s/net.sock"), binary="/usr/libexec/qemu-kvm")
    assert process.QemuLaunch.from_json(apart.to_json()) == apart


@pytest.mark.parametrize(
    "value", [None, [], {}, {"forwards": 1}, {**LAUNCH.to_json(), "hardware": {"cpu": "max"}}]
)
def test_anything_else_is_no_launch(value: object) -> None:
    assert process.QemuLaunch.from_json(value) is None


@pytest.fixture
def stand_in(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A process that looks like QEMU by its name and arguments."""
    program = tmp_path / "qemu-system-test"
    program.symlink_to("/bin/sh")
    argv = [str(program), "-c", "read line", "-uuid", UUID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def test_identity_is_pid_start_time_and_uuid(stand_in: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(stand_in.pid).create_time()
    record = {"pid": stand_in.pid, "created": created}
    found = process.by_record(record, UUID)
    assert found and found.pid == stand_in.pid
    assert process.by_record({**record, "created": created - 60}, UUID) is None
    assert process.by_record(record, UUID.replace("5", "6")) is None
    assert process.by_record({"pid": "x"}, UUID) is None
    assert process.find(None, UUID) == found  # its record was lost
    process.kill(found, "another-uuid")
    assert stand_in.poll() is None
    process.kill(found, UUID)
    assert process.find(record, UUID) is None


@pytest.mark.parametrize(
    ("program", "binaries", "known"),
    [
        ("qemu-system-x86_64", [], True),
        ("qemu-kvm", [], True),  # Red Hat's, of any version of lab's record
        ("emulator-of-mine", [], False),
        ("emulator-of-mine", ["{0}"], True),
        ("emulator-of-mine", ["emulator-of-mine"], False),  # not what its arguments call it
        ("not-qemu-kvm", [], False),
    ],
)
def test_what_the_program_is_called_is_remembered(
    tmp_path: Path, program: str, binaries: list[str], known: bool
) -> None:
    path = tmp_path / program
    path.symlink_to("/bin/sh")
    names = [item.format(path) for item in binaries]
    argv = [str(path), "-c", "read line", "-uuid", UUID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        try:
            running = psutil.Process(child.pid)
            poll(lambda: running.cmdline() or None, Deadline.after(5), "its beginning", every=0.01)
            record = {"pid": child.pid, "created": running.create_time()}
            for found in (process.by_record(record, UUID, names), process.by_uuid(UUID, names)):
                assert (found is not None) is known
            process.kill(running, UUID, patience=2, binaries=names)
            assert (child.poll() is not None) is known
        finally:
            child.kill()


def test_the_uuid_in_anothers_arguments_means_nothing() -> None:
    argv = [sys.executable, "-c", "input()", "-uuid", UUID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        try:
            assert process.is_machine(psutil.Process(child.pid), UUID) is False
        finally:
            child.kill()

"""Which process is a machine's, and what is remembered of its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.engines.protocol import Forward
from lab.engines.qemu import process
from lab.engines.qemu.command import Hardware

UUID = "5b0b2f4e-7a52-4e0f-9d3d-3f0c7d0d8a11"
LAUNCH = process.Launch(Hardware("q35", "tcg", "max", 1, 64), [Forward("ssh", 2222, 22)], Path("/s/q.sock"))


def test_a_launch_round_trips() -> None:
    assert process.Launch.from_json(LAUNCH.to_json()) == LAUNCH


@pytest.mark.parametrize(
    "value", [None, [], {}, {"forwards": 1}, {**LAUNCH.to_json(), "hardware": {"cpu": "max"}}]
)
def test_anything_else_is_no_launch(value: object) -> None:
    assert process.Launch.from_json(value) is None


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


def test_the_uuid_in_anothers_arguments_means_nothing() -> None:
    argv = [sys.executable, "-c", "input()", "-uuid", UUID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        try:
            assert process.is_machine(psutil.Process(child.pid), UUID) is False
        finally:
            child.kill()

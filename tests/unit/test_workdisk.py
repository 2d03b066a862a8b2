"""The work disk, as it is written: read back by e2fsprogs, as no PC is needed for that."""

from __future__ import annotations

from pathlib import Path

from lab import proc
from lab.deadline import Deadline
from lab.rehearsal import workdisk
from lab.rehearsal.workdisk import FILES, MOUNT, Job
from tests.capabilities import needs, needs_linux

pytestmark = [needs_linux, needs("mke2fs", "debugfs")]


def _ask(disk: Path, request: str) -> str:
    words = [workdisk._program("debugfs"), "-R", request, disk]
    return proc.run(words, deadline=Deadline.after(30)).out


def test_a_job_brings_its_files_as_they_are(tmp_path: Path) -> None:
    program = tmp_path / "files" / "some where" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho well\n")
    program.chmod(0o755)
    there = FILES / "some where" / program.name
    tasks = ((str(there), "two words"), ("lab.doctor", "--json"))
    disk = tmp_path / "work.raw"
    workdisk.make(disk, Job(tasks, {"LAB_NAME": "a b"}, tmp_path / "files"), [], Deadline.after(60))
    inside = f'"/{there.relative_to(MOUNT)}"'
    assert _ask(disk, f"cat {inside}") == program.read_text()
    assert "Mode:  0755" in _ask(disk, f"stat {inside}")
    assert _ask(disk, "cat /job/1") == f"{there}\ntwo words\n"
    assert _ask(disk, "cat /job/2") == "lab.doctor\n--json\n"
    assert _ask(disk, "cat /job/environment") == "LAB_NAME=a b\n"
    assert program.exists(), "it was copied"

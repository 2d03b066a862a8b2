"""The work disk, as it is written: read back by e2fsprogs, as no PC is needed for that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
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


def _worked(tmp_path: Path, job: Job, out: dict[str, bytes]) -> tuple[Path, Path]:
    """A disk as a PC leaves it that wrote those files in `out`; and the tree that it was made of."""
    tree = tmp_path / "tree"
    (tree / "state" / "evidence" / "default").mkdir(parents=True)
    (tree / "state" / "evidence" / "default" / "validation.json").write_text("{}")
    (tree / "out" / "host").mkdir(parents=True)
    (tree / "out" / "host" / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(tree / "out" / "pipe")
    for name, content in out.items():
        (tree / "out" / name).write_bytes(content)
    disk = tmp_path / "worked.raw"
    words = [workdisk._program("mke2fs"), "-q", "-t", "ext4", "-O", "^metadata_csum,^dir_index", "-d", tree]
    proc.run([*words, disk, "8192k"], deadline=Deadline.after(30))
    return disk, tree


JOB = Job((("lab.doctor",), ("lab.up",), ("lab.destroy",)), {})


def test_what_it_left_is_taken_as_plain_files(tmp_path: Path) -> None:
    out = {
        "1.status": b"0\n",
        "1.out": b'{"a": 1}',
        "1.err": b"well\n",
        "2.status": b"12\n",
        "2.out": b"no JSON",
    }
    disk, _ = _worked(tmp_path, JOB, out)
    results = workdisk.read(disk, tmp_path / "taken", JOB, Deadline.after(30))
    assert [(result.status, result.document) for result in results] == [(0, {"a": 1}), (12, {}), (None, {})]
    assert results[0].err.strip() == "well"
    taken = tmp_path / "taken"
    assert (taken / "evidence/default/validation.json").read_text() == "{}"
    assert (taken / "out/2.out").read_bytes() == b"no JSON"
    assert [path for path in taken.rglob("*") if path.is_symlink() or path.is_fifo()] == []


@pytest.mark.parametrize("status", ["\u00b2", "9" * 5000, "-1", ""])
def test_what_is_no_status_and_no_document_is_neither(tmp_path: Path, status: str) -> None:
    disk, _ = _worked(tmp_path, JOB, {"1.status": status.encode(), "1.out": b"[" * 200_000})
    first = workdisk.read(disk, tmp_path / "taken", JOB, Deadline.after(30))[0]
    assert (first.status, first.document) == (None, {})


def test_no_name_on_it_leads_out_of_the_folder(tmp_path: Path) -> None:
    disk, _ = _worked(tmp_path, JOB, {"aaaescaped": b"out", "1.status": b"0"})
    content = disk.read_bytes()
    assert b"aaaescaped" in content
    disk.write_bytes(content.replace(b"aaaescaped", b"../escaped"))
    results = workdisk.read(disk, tmp_path / "taken", JOB, Deadline.after(30))
    assert results[0].status == 0
    assert [
        path
        for path in tmp_path.rglob("*escaped*")
        if (tmp_path / "tree") not in path.parents and (tmp_path / "taken") not in path.parents
    ] == []


def test_a_check_that_was_killed_vouches_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, _ = _worked(tmp_path, JOB, {})
    killed = tmp_path / "e2fsck"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(LabError, match="cannot be repaired"):
        workdisk.read(disk, tmp_path / "taken", JOB, Deadline.after(30))
    assert not list((tmp_path / "taken").rglob("*"))

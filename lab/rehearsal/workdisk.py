"""The work disk of an emulated PC: the project, lab's images and a job go in, the job's results come out.

A raw ext4 image without a partition table, made and read without root and without mounting it, new for each
rehearsal. What is on it afterwards is the word of the Linux that ran there: only plain files are taken.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.config.loading import PROJECT
from lab.core import bounds, files, proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError, UsageError
from lab.engines.virtualbox import basedisk
from lab.host.packages import find_program
from lab.images import cache as images
from lab.rehearsal import image
from lab.rehearsal.bochs import disk_bytes

MOUNT = Path("/srv")
"""Where the PC has it; in it the project, the image cache, lab's state (images/rehearsal/lab/run-job)."""
PROGRAM = MOUNT / "lab"
CACHE = MOUNT / "cache"
STATE = MOUNT / "state"
FILES = MOUNT / "files"
"""Where the PC has the job's own files."""

DISK_GIB = 12
"""Of the VM that lab makes there."""

_STATUS = re.compile("[0-9]{1,3}")
_LABEL = "lab-work"
_SIZE = 16 << 30
"""Bytes. Sparse: it grows to what is written, a VM's disk and the same disk converted for VirtualBox."""
_SPACE = 256 << 20
"""Bytes to be free for what is taken from it."""
_TAKEN = {"out": "out", "state/evidence": "evidence"}
"""Folders on the disk, and where they go below the folder that is read into."""


@dataclass(frozen=True)
class Job:
    """What is to be done there: tasks in their order, and lab's settings.

    A task is the words after bin/invoke, run as an ordinary user; or, where the first begins with a slash, a
    program there with its words, run as root. `files` is a folder of the job's own, copied to FILES.
    """

    tasks: tuple[tuple[str, ...], ...]
    environment: Mapping[str, str]
    files: Path | None = None

    def __post_init__(self) -> None:
        lines = [
            *(word for task in self.tasks for word in task),
            *self.environment,
            *self.environment.values(),
        ]
        if any("\n" in line for line in lines) or not all(self.tasks):
            raise UsageError("a job's words and settings are lines, and a task has words")


@dataclass(frozen=True)
class TaskResult:
    """What a task left: `status` None where it did not end, `document` empty where it printed no JSON."""

    words: tuple[str, ...]
    status: int | None
    document: dict[str, Any]
    err: str


def make(target: Path, job: Job, image_folders: Sequence[Path], deadline: Deadline) -> None:
    """Write the disk `target` with the job, and the images of those folders of lab's cache.

    Beside a VM's image lies the disk that VirtualBox has of it: converting takes an emulated PC a minute.

    Files are made in a folder beside it, and removed. Raises BlockedError (disk space, a missing program),
    CommandError, DeadlineError.
    """
    tree = target.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    try:
        image.copy_program(tree / PROGRAM.name)
        shutil.copy2(PROJECT / "README.md", tree / PROGRAM.name)
        for folder in image_folders:
            _copy_image(folder, tree / CACHE.name / "images" / folder.name, deadline)
        if job.files:
            shutil.copytree(job.files, tree / FILES.name, symlinks=True)
        _write_job(tree / "job", job)
        target.unlink(missing_ok=True)
        proc.run(
            [
                *(_program("mke2fs"), "-q", "-t", "ext4", "-L", _LABEL, "-m", "0", "-N", "65536", "-d", tree),
                # What is put off is done by the emulated processor.
                *("-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", target, f"{_SIZE >> 10}k"),
            ],
            deadline=deadline,
        )
        os.truncate(target, disk_bytes(_SIZE))
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def read(disk: Path, folder: Path, job: Job, deadline: Deadline) -> list[TaskResult]:
    """Take the results into `folder`, as far as the job came: `out` and `evidence`; what each task left.

    The PC is off. A disk that it did not finish writing is repaired first. Raises LabError.
    """
    # What a file system's check corrects is told by its status: 1 and 2 are good ends (e2fsck(8)). It also
    # takes away names that would lead out of a folder.
    checked = proc.run([_program("e2fsck"), "-f", "-y", disk], check=False, deadline=deadline)
    if not 0 <= checked.status <= 2:  # below 0 it was killed
        tail = proc.tail(checked.out + checked.err)
        raise LabError(f"the file system of {disk} cannot be repaired", tail=tail, evidence=[disk])
    for source, name in _TAKEN.items():
        _take(disk, source, folder / name, deadline)
    return [_result(folder / "out", number, task) for number, task in enumerate(job.tasks, 1)]


def _program(name: str) -> str:
    """A program of e2fsprogs, which an ordinary user's PATH does not lead to on Debian."""
    return str(find_program(name) or name)


def _write_job(folder: Path, job: Job) -> None:
    folder.mkdir(parents=True)
    settings = [f"{name}={value}" for name, value in job.environment.items()]
    files.write_atomic(folder / "environment", _lines(settings))
    for number, task in enumerate(job.tasks, 1):
        files.write_atomic(folder / str(number), _lines(task))


def _lines(words: Sequence[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _copy_image(source: Path, target: Path, deadline: Deadline) -> None:
    """An image of the cache. Its file's time becomes one that ext4 keeps, and is noted as verified anew:
    else it would be hashed over there."""
    shutil.copytree(source, target)
    entry = images.find(target.parent, target.name)
    if entry is None:
        raise LabError(f"{source} is no complete image")
    seconds = int(entry.path.stat().st_mtime)
    os.utime(entry.path, (seconds, seconds))
    images.verify(entry)
    if entry.manifest.kind == "guest":
        disk = basedisk.ensure(source / entry.manifest.file, DISK_GIB, source.parents[1], _no_conversion)
        copy = target.parents[1] / basedisk.FOLDER / disk.name
        copy.parent.mkdir()
        proc.run(["cp", "--sparse=always", "--reflink=auto", disk, copy], deadline=deadline)


def _no_conversion(image: Path, _target: Path, _size: int) -> None:
    raise UsageError(f"{image} is for VirtualBox to convert, and there is none outside of the PC")


def _take(disk: Path, source: str, target: Path, deadline: Deadline) -> None:
    """Copy a folder of the disk, if it is there. Links, devices and the like are left out."""
    target.mkdir(parents=True, exist_ok=True)
    facts = proc.run([_program("debugfs"), "-R", f"stat /{source}", disk], deadline=deadline)
    if "Type: directory" not in facts.out:
        return
    files.require_space(target, _SPACE, "a rehearsal's evidence")
    work = target.with_name(f".{target.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        # As an ordinary user it says for each file that it may not give it away.
        words: list[str | Path] = [_program("debugfs"), "-R", f"rdump /{source} .", disk.absolute()]
        proc.run(words, deadline=deadline, check=False, cwd=work)
        root = work / Path(source).name
        for path in sorted(root.rglob("*"), reverse=True):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                path.unlink()
            else:
                path.chmod(0o700 if path.is_dir() else 0o600)
        for child in root.iterdir():
            child.rename(target / child.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _result(out: Path, number: int, words: tuple[str, ...]) -> TaskResult:
    status = _text(out / f"{number}.status").strip()
    try:
        document = json.loads(_text(out / f"{number}.out"))
    except (ValueError, RecursionError):
        document = {}
    return TaskResult(
        words,
        int(status) if _STATUS.fullmatch(status) else None,
        document if isinstance(document, dict) else {},
        proc.tail(_text(out / f"{number}.err")),
    )


def _text(path: Path) -> str:
    return bounds.read_text(path) if path.is_file() else ""

"""The system disk of an emulated PC: Debian sid with VirtualBox, its driver, and lab's Python environment.

One image serves every kind of emulated PC. It is kept in lab's image cache, named by what it is made of.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.config.loading import PROJECT
from lab.core import files, proc
from lab.core.deadline import Deadline
from lab.core.steps import Step
from lab.images import debian, making, mmdebstrap
from lab.rehearsal.bochs import disk_bytes

SOURCES = PROJECT / "images" / "rehearsal"
PROGRAM = (
    "bin",
    "lab",
    "lab.toml",
    "images",
    "docs/schemas",
    "pyproject.toml",
    "requirements.lock",
    "tasks.py",
)
"""What of the project lab needs to run, as paths below its folder."""

_ENVIRONMENT = ("requirements.lock", "pyproject.toml", "bin/invoke", "bin/make_venv.py")
_DISK, _KERNEL, _INITRAMFS = "disk.raw", "vmlinuz", "initramfs"
_SPACE = 8 << 30
_BUILD_SECONDS = 1800.0
_ASK_SECONDS = 60.0


class SystemRecipe(debian.ReleaseRecipe):
    """recipe.toml of the system disk."""

    size_mib: int


@dataclass(frozen=True)
class SystemImage:
    """A cached system disk and what boots it. It is shared: nobody writes to it."""

    folder: Path

    @property
    def id(self) -> str:
        """The image's id in the cache."""
        return self.folder.name

    @property
    def disk(self) -> Path:
        """A raw image of a file system without a partition table."""
        return self.folder / _DISK

    @property
    def kernel(self) -> Path:
        """The Linux that boots it."""
        return self.folder / _KERNEL

    @property
    def initramfs(self) -> Path:
        """What that Linux starts from."""
        return self.folder / _INITRAMFS


def recipe() -> SystemRecipe:
    """The recipe of the system disk, as the file has it."""
    return SystemRecipe.model_validate(files.read_toml(SOURCES / "recipe.toml"))


def recipe_hash() -> str:
    """Hex digest of everything the image is made from but the packages of Debian."""
    return making.digest_of(SOURCES, [Path(__file__), *(PROJECT / name for name in _ENVIRONMENT)])


def find(cache: Path) -> SystemImage | None:
    """The newest image in the cache of today's recipe and lock; None without one. Reads the cache only."""
    entry = making.newest(cache, recipe_hash())
    return SystemImage(entry.folder) if entry else None


def build(cache: Path, step: Step) -> SystemImage:
    """The image of today's packages, made unless it is there. One process builds, others wait.

    Raises BlockedError (mirror, package index, disk, mmdebstrap itself), DeadlineError, InterruptedByUser.
    """
    made, deadline = recipe(), Deadline.after(_BUILD_SECONDS)

    def fill(work: Path, deadline: Deadline) -> Path:
        files.require_space(cache, _SPACE, "building the system disk of an emulated PC")
        return _fill(work, made, step, deadline)

    return SystemImage(debian.build_release(cache, step, made, "rehearsal", recipe_hash(), deadline, fill))


def copy_program(target: Path) -> None:
    """Copy what lab needs to run of this project into the folder `target`."""
    for name in PROGRAM:
        source, copy = PROJECT / name, target / name
        if source.is_dir():
            leave = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, copy, symlinks=True, ignore=leave)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def _fill(work: Path, made: SystemRecipe, step: Step, deadline: Deadline) -> Path:
    sources = work / "sources"
    shutil.copytree(SOURCES, sources)
    copy_program(sources / "project")
    # The project's metadata names it, and installing the environment reads that.
    shutil.copy2(PROJECT / "README.md", sources / "project")
    outputs = ("root.qcow2", _KERNEL, _INITRAMFS, "packages")
    mmdebstrap.build(
        made,
        sources=sources,
        log=work / "build.log",
        deadline=deadline,
        env={"LAB_ROOT_MIB": str(made.size_mib), "INITRD": "No", **_package_index()},
        downloads={f"{debian.OUT}/{name}": work / name for name in outputs},
        on_progress=step.progress,
    )
    shutil.rmtree(sources)
    step.note("writing the disk")
    target, root = work / _DISK, work / "root.qcow2"
    proc.run(["qemu-img", "convert", "-O", "raw", root, target], deadline=deadline)
    root.unlink()
    os.truncate(target, disk_bytes(target.stat().st_size))
    return target


def _package_index() -> dict[str, str]:
    """Where this machine's pip asks, if its configuration names an index of its own."""
    if "PIP_INDEX_URL" in os.environ:
        return {}
    words = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = proc.run(words, check=False, deadline=Deadline.after(_ASK_SECONDS)).out.strip()
    return {"PIP_INDEX_URL": index} if index else {}

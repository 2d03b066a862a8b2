"""The system disk of an emulated PC: Debian sid with VirtualBox, its driver, and lab's Python environment.

One image serves every kind of emulated PC. It is kept in lab's image cache, named by what it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.config.loading import PROJECT
from lab.core import files, proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.steps import Step
from lab.images import cache as images
from lab.images import mmdebstrap
from lab.images.recipe import digest_of
from lab.rehearsal.bochs import disk_bytes

SOURCES = PROJECT / "images" / "rehearsal"
KIND = "rehearsal"
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
_OUT = "/tmp/lab-out"  # noqa: S108 - inside the root that is being built
_SPACE = 8 << 30
_BUILD_SECONDS = 1800.0
_ASK_SECONDS = 60.0


class SystemRecipe(BaseModel):
    """recipe.toml. `apt_options` are lines of apt's configuration while the image is built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    components: list[str]
    release: str
    apt_options: list[str]
    packages: list[str]
    size_mib: int


@dataclass(frozen=True)
class SystemImage:
    """A cached system disk and what boots it. It is shared: nobody writes to it."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def disk(self) -> Path:
        """A raw image of a file system without a partition table."""
        return self.folder / _DISK

    @property
    def kernel(self) -> Path:
        return self.folder / _KERNEL

    @property
    def initramfs(self) -> Path:
        return self.folder / _INITRAMFS


def recipe() -> SystemRecipe:
    return SystemRecipe.model_validate(files.read_toml(SOURCES / "recipe.toml"))


def recipe_hash() -> str:
    """Hex digest of everything the image is made from but the packages of Debian."""
    return digest_of(SOURCES, [Path(__file__), *(PROJECT / name for name in _ENVIRONMENT)])


def find(cache: Path) -> SystemImage | None:
    """The newest image in the cache of today's recipe and lock; None without one. Asks nobody."""
    wanted = recipe_hash()
    made = [entry for entry in images.entries(cache) if entry.manifest.recipe == wanted]
    newest = max(made, key=lambda entry: entry.manifest.created, default=None)
    return SystemImage(newest.folder) if newest else None


def build(cache: Path, step: Step) -> SystemImage:
    """Make the image of today's packages, unless it is there. One process builds, others wait.

    Raises BlockedError (mirror, package index, disk, mmdebstrap itself), DeadlineError, InterruptedByUser.
    """
    made, deadline = recipe(), Deadline.after(_BUILD_SECONDS)
    step.note(f"asking Debian {made.suite} for the packages of the emulated PC")
    versions = mmdebstrap.resolve_versions(
        made.suite,
        made.packages,
        deadline=deadline,
        components=made.components,
        apt_options=made.apt_options,
    )
    digest = hashlib.sha256(json.dumps([recipe_hash(), versions], sort_keys=True).encode()).hexdigest()
    image_id = images.image_id(made.release, digest)
    with images.lock(cache, image_id, say=step.note):
        if images.find(cache, image_id) is None:
            files.require_space(cache, _SPACE, "building the system disk of an emulated PC")
            with files.building(cache / image_id) as work:
                _make(work, image_id, versions, step, deadline)
    if (entry := images.find(cache, image_id)) is None:
        raise LabError(f"image {image_id} vanished while it was built")
    return SystemImage(entry.folder)


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


def _make(work: Path, image_id: str, versions: dict[str, str], step: Step, deadline: Deadline) -> None:
    made, sources = recipe(), work / "sources"
    shutil.copytree(SOURCES, sources)
    copy_program(sources / "project")
    # The project's metadata names it, and installing the environment reads that.
    shutil.copy2(PROJECT / "README.md", sources / "project")
    mmdebstrap.build(
        suite=made.suite,
        packages=made.packages,
        hooks=sorted((sources / "hooks").iterdir()),
        output=None,
        log=work / "build.log",
        deadline=deadline,
        env={"LAB_ROOT_MIB": str(made.size_mib), "INITRD": "No", **_package_index()},
        components=made.components,
        apt_options=made.apt_options,
        sources=sources,
        downloads={f"{_OUT}/{name}": work / name for name in ("root.qcow2", _KERNEL, _INITRAMFS, "packages")},
        on_progress=step.progress,
    )
    shutil.rmtree(sources)
    step.note("writing the disk")
    target, root = work / _DISK, work / "root.qcow2"
    proc.run(["qemu-img", "convert", "-O", "raw", root, target], deadline=deadline)
    root.unlink()
    os.truncate(target, disk_bytes(target.stat().st_size))
    manifest = images.Manifest(
        id=image_id,
        kind=KIND,
        name=made.release,
        recipe=recipe_hash(),
        file=target.name,
        format="raw",
        bytes=target.stat().st_size,
        sha256=files.sha256(target),
        created=datetime.now(UTC),
        packages=versions,
    )
    images.seal(work, manifest)


def _package_index() -> dict[str, str]:
    """Where this machine's pip asks, if its configuration names an index of its own."""
    if "PIP_INDEX_URL" in os.environ:
        return {}
    words = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = proc.run(words, check=False, deadline=Deadline.after(_ASK_SECONDS)).out.strip()
    return {"PIP_INDEX_URL": index} if index else {}

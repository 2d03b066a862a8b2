"""Builds disks with Debian from this machine's apt sources; no loop device, no root needed.

A disk's recipe is a folder: recipe.toml, the hooks, and what they read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.steps import Step
from lab.images import cache as images
from lab.images import disk, making, mmdebstrap

SOURCES = Path(__file__).resolve().parents[2] / "images" / "guest" / "debian-13"
KERNEL = "vmlinuz"
"""The image's kernel, kept beside the disk: the probe of the host's KVM boots it."""
OUT = "/tmp/lab-out"  # noqa: S108 - inside the root that is being built
"""Where the hooks of every disk put what is taken out of the root."""

_BUILDERS = (Path(__file__), Path(disk.__file__))
_BUILD_SECONDS = 1200.0
_SPACE = 4 << 30
_BOOT = (KERNEL, "initrd.img", "syslinux.cfg")


class _Disk(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    size_gib: int
    boot_mib: int


class ReleaseRecipe(mmdebstrap.RootRecipe):
    """The part of recipe.toml that every disk has. `release` begins the image's id."""

    release: str


class DebianRecipe(ReleaseRecipe):
    """recipe.toml of the lab VM's disk. `docker` are packages that lie in it, not installed."""

    docker: tuple[str, ...] = ()
    disk: _Disk


def recipe() -> DebianRecipe:
    """The recipe of the lab VM's disk, as the file has it."""
    return DebianRecipe.model_validate(files.read_toml(SOURCES / "recipe.toml"))


def recipe_hash() -> str:
    """Hex digest of everything the image is made from but Debian's packages."""
    return making.digest_of(SOURCES, _BUILDERS)


def find(cache: Path) -> Path | None:
    """The folder of the newest image made from this recipe, or None. Reads the cache only."""
    entry = making.newest(cache, recipe_hash())
    return entry.folder if entry else None


def kernel(cache: Path) -> Path | None:
    """A kernel of any image lab built, for the probe of the host's KVM."""
    return next((path for path in sorted(cache.glob(f"*/{KERNEL}")) if path.is_file()), None)


def build(cache: Path, step: Step) -> Path:
    """The folder of the image of today's packages, made unless it is there. One process builds, others wait.

    Raises BlockedError (mirror, disk, packages, mmdebstrap itself), DeadlineError, InterruptedByUser.
    """
    made = recipe()
    wanted = made.model_copy(update={"packages": [*made.packages, *made.docker]})

    def fill(work: Path, deadline: Deadline) -> Path:
        files.require_space(cache, _SPACE, "building the Debian image")
        return _fill(work, made, step, deadline)

    return build_release(cache, step, wanted, "guest", recipe_hash(), Deadline.after(_BUILD_SECONDS), fill)


def build_release(
    cache: Path,
    step: Step,
    wanted: ReleaseRecipe,
    kind: Literal["guest", "rehearsal"],
    recipe_hash: str,
    deadline: Deadline,
    fill: Callable[[Path, Deadline], Path],
) -> Path:
    """The folder of an image of `wanted.packages` as they are today, made by `fill` unless it is there.

    `fill` gets the folder to work in, and returns the disk that it made there. Raises as `build` does.
    """
    step.note(f"asking Debian {wanted.suite} for the packages of {wanted.release}")
    versions = mmdebstrap.resolve_versions(wanted, deadline=deadline)
    image_id = making.id_of(wanted.release, recipe_hash, versions)

    def described(work: Path) -> images.Manifest:
        target = fill(work, deadline)
        return making.describe(
            images.Manifest,
            target,
            id=image_id,
            kind=kind,
            name=wanted.release,
            recipe=recipe_hash,
            format=target.suffix[1:],
            packages=versions,
        )

    return making.make(cache, image_id, step, described).folder


def _fill(work: Path, made: DebianRecipe, step: Step, deadline: Deadline) -> Path:
    outputs = (*_BOOT, "root.qcow2", "packages")
    mmdebstrap.build(
        made,
        sources=SOURCES,
        log=work / "build.log",
        deadline=deadline,
        env={
            "LAB_DOCKER": " ".join(made.docker),
            "LAB_ROOT_MIB": str(made.disk.size_gib * 1024 - made.disk.boot_mib - disk.BOOT_START // disk.MIB),
            "INITRD": "No",
        },
        downloads={f"{OUT}/{name}": work / name for name in outputs},
        on_progress=step.progress,
    )
    step.note("assembling the disk")
    target = work / "disk.qcow2"
    disk.assemble(
        target,
        boot={name: work / name for name in _BOOT},
        root=work / "root.qcow2",
        size_gib=made.disk.size_gib,
        boot_mib=made.disk.boot_mib,
        deadline=deadline,
    )
    for name in ("root.qcow2", "initrd.img", "syslinux.cfg"):
        (work / name).unlink()
    return target

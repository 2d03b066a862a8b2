"""Builds disks with Debian from this machine's apt sources; no loop device, no root needed.

A disk's recipe is a folder: recipe.toml, the hooks, and what they read. The lab VM's own is the default.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.steps import Step
from lab.images import cache as images
from lab.images import disk, mmdebstrap
from lab.images.recipe import digest_of

SOURCES = Path(__file__).resolve().parents[2] / "images" / "guest" / "debian-13"
KERNEL = "vmlinuz"
"""The image's kernel, kept beside the disk: the probe of the host's KVM boots it."""

_BUILDERS = (Path(__file__), Path(disk.__file__))
_BUILD_SECONDS = 1200.0
_SPACE = 4 << 30
_OUT = "/tmp/lab-out"  # noqa: S108 - inside the root that is being built
_BOOT = (KERNEL, "initrd.img", "syslinux.cfg")


class _Disk(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    size_gib: int
    boot_mib: int


class DebianRecipe(BaseModel):
    """recipe.toml. `apt_options` are lines of apt's configuration while the image is built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    components: list[str] = ["main"]
    apt_options: list[str] = []
    release: str
    packages: list[str]
    docker: list[str] = []
    disk: _Disk


def recipe(sources: Path = SOURCES) -> DebianRecipe:
    return DebianRecipe.model_validate(files.read_toml(sources / "recipe.toml"))


def recipe_hash(sources: Path = SOURCES) -> str:
    """Hex digest of everything the image is made from but Debian's packages."""
    return digest_of(sources, _BUILDERS)


def find(cache: Path, sources: Path = SOURCES) -> Path | None:
    """The folder of the newest image made from this recipe, or None. Asks nobody."""
    wanted = recipe_hash(sources)
    matching = [entry for entry in images.entries(cache) if entry.manifest.recipe == wanted]
    newest = max(matching, key=lambda entry: entry.manifest.created, default=None)
    return newest.folder if newest else None


def kernel(cache: Path) -> Path | None:
    """A kernel of any image lab built, for the probe of the host's KVM."""
    return next((path for path in sorted(cache.glob(f"*/{KERNEL}")) if path.is_file()), None)


def build(cache: Path, step: Step, sources: Path = SOURCES) -> Path:
    """Make the image of today's packages, unless it is there. One process builds, others wait.

    Raises BlockedError (mirror, disk, packages, mmdebstrap itself), DeadlineError, InterruptedByUser.
    """
    made = recipe(sources)
    deadline = Deadline.after(_BUILD_SECONDS)
    step.note(f"asking Debian {made.suite} for the image's packages")
    versions = mmdebstrap.resolve_versions(
        made.suite,
        [*made.packages, *made.docker],
        deadline=deadline,
        components=made.components,
        apt_options=made.apt_options,
    )
    digest = hashlib.sha256(json.dumps([recipe_hash(sources), versions], sort_keys=True).encode()).hexdigest()
    image_id = images.image_id(made.release, digest)
    with images.lock(cache, image_id, say=step.note):
        if there := images.find(cache, image_id):
            return there.folder
        files.require_space(cache, _SPACE, "building the Debian image")
        with files.building(cache / image_id) as work:
            _make(work, image_id, sources, versions, step, deadline)
    built = images.find(cache, image_id)
    if built is None:
        raise LabError(f"image {image_id} vanished while it was built")
    return built.folder


def _make(
    work: Path, image_id: str, sources: Path, versions: dict[str, str], step: Step, deadline: Deadline
) -> None:
    made = recipe(sources)
    outputs = (*_BOOT, "root.qcow2", "packages")
    mmdebstrap.build(
        suite=made.suite,
        packages=made.packages,
        hooks=sorted((sources / "hooks").iterdir()),
        output=None,
        log=work / "build.log",
        deadline=deadline,
        env={
            "LAB_DOCKER": " ".join(made.docker),
            "LAB_ROOT_MIB": str(made.disk.size_gib * 1024 - made.disk.boot_mib - disk.BOOT_START // disk.MIB),
            "INITRD": "No",
        },
        components=made.components,
        apt_options=made.apt_options,
        sources=sources,
        downloads={f"{_OUT}/{name}": work / name for name in outputs},
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
    manifest = images.Manifest(
        id=image_id,
        kind="guest",
        name=made.release,
        recipe=recipe_hash(sources),
        file=target.name,
        format="qcow2",
        bytes=target.stat().st_size,
        sha256=files.sha256(target),
        created=datetime.now(UTC),
        packages=versions,
    )
    images.seal(work, manifest)

"""An image of a registry, brought into the cache as one archive that `docker load` takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.core.steps import Step
from lab.core.web import Patience
from lab.images import cache as images
from lab.images import making
from lab.images.registry import archive, manifests
from lab.images.registry.client import Registry
from lab.images.registry.manifests import Resolved
from lab.images.registry.reference import Reference

KIND = "emulator"
_FILE = "image.tar"
_MARGIN = 128 << 20
"""Bytes that must stay free beside blobs and archive."""
_PROGRESS_EVERY = 16 << 20


class PulledFacts(BaseModel):
    """What a pulled image is, as its manifest keeps it. Digests are sha256:…"""

    model_config = ConfigDict(frozen=True)

    reference: str
    """As Docker names it once it is loaded."""
    image_id: str
    """The configuration's digest: Docker's classic image id."""
    layers: tuple[str, ...]
    """Of the unpacked layers, as `docker image inspect` shows them."""
    digest: str
    """What the name stood for when it was pulled: an index's digest, or the manifest's."""
    manifest_digest: str
    compressed_bytes: int


def pull(
    cache: Path,
    reference: Reference,
    *,
    mirror: str = "",
    digest: str = "",
    step: Step,
    deadline: Deadline,
    patience: Patience | None = None,
    fits: Callable[[int], None] | None = None,
) -> images.CachedImage:
    """The image in the cache, fetched unless it is there. One process pulls, others wait.

    `mirror` is asked in place of the registry that `reference` names; `digest` pins what may come; `fits`
    is told the size in bytes before anything but the manifest is fetched, and may raise.
    What was fetched before an interruption is kept, and not fetched again. Raises BlockedError
    (lab.images.errors, no space), DeadlineError, BusyError, InterruptedByUser, UsageError.
    """
    with Registry(reference, mirror, deadline, patience, step.note) as registry:
        resolved = registry.resolve(digest)
        name = images.image_id(reference.name, resolved.manifest.removeprefix("sha256:"))

        def fill(work: Path) -> images.Manifest:
            blobs = images.downloads(cache) / name
            if fits is not None:
                fits(resolved.size)
            _require_space(cache, blobs, resolved)
            _fetch(registry, resolved, blobs, step)
            manifest = _pack(work, name, registry, resolved, blobs, step)
            shutil.rmtree(blobs, ignore_errors=True)
            return manifest

        entry = making.make(cache, name, step, fill, again="pulling it again", deadline=deadline)
    step.result = f"{name}, {resolved.digest}"
    return entry


def find(cache: Path, digest: str) -> images.CachedImage | None:
    """The undamaged image pulled by `digest` (an index's or a manifest's), or None. Asks nobody."""
    for entry in images.entries(cache):
        if entry.manifest.kind == KIND:
            pulled = facts(entry)
            if digest in (pulled.digest, pulled.manifest_digest) and not making.damage_of(entry):
                return entry
    return None


def facts(entry: images.CachedImage) -> PulledFacts:
    """What a pulled image's manifest says beside what every image's does."""
    return PulledFacts.model_validate(entry.manifest.model_extra)


def _require_space(cache: Path, blobs: Path, image: Resolved) -> None:
    """The blobs and the archive made of them lie side by side for a moment."""
    here = sum(item.stat().st_size for item in blobs.iterdir()) if blobs.is_dir() else 0
    needed = max(0, image.size - here) + image.size + _MARGIN
    files.require_space(cache, needed, f"pulling {image.reference}")


def _fetch(registry: Registry, image: Resolved, blobs: Path, step: Step) -> None:
    size = f"{image.size / 1e6:.0f} MB, {len(image.layers)} layer{'s' if len(image.layers) > 1 else ''}"
    step.note(f"{image.reference} from {registry.host}: {size}, {image.digest}")
    before = 0
    for number, blob in enumerate(image.blobs):
        what = f"layer {number} of {len(image.blobs) - 1}" if number else "configuration"

        def report(done: int, _total: int | None, rate: str, before: int = before, what: str = what) -> None:
            step.progress(before + done, image.size, f"{what}, {rate}")

        registry.fetch_blob(blob, blobs / blob.hex, step, report)
        before += blob.size


def _pack(
    work: Path, name: str, registry: Registry, image: Resolved, blobs: Path, step: Step
) -> images.Manifest:
    config = manifests.parse_config((blobs / image.config.hex).read_bytes(), str(image.reference))
    if len(config.layers) != len(image.layers):
        raise BlockedError(
            f"{image.reference} has {len(image.layers)} layers, and its configuration names "
            f"{len(config.layers)}"
        )
    reported = 0

    def report(done: int) -> None:
        nonlocal reported
        if done - reported >= _PROGRESS_EVERY or done >= image.size:
            reported = done
            step.progress(min(done, image.size), image.size, "packing the archive")

    target = work / _FILE
    sha256 = archive.write(target, image, blobs, report)
    return making.describe(
        images.Manifest,
        target,
        id=name,
        kind=KIND,
        name=image.reference.name,
        url=f"{registry.url}/manifests/{image.manifest}",
        format="docker-archive",
        sha256=sha256,
        reference=image.reference.tagged,
        image_id=image.config.digest,
        layers=config.layers,
        digest=image.digest,
        manifest_digest=image.manifest,
        compressed_bytes=image.size,
    )

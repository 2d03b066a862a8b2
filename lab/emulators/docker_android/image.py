"""Which image a lab's docker-android is: one of a registry, by digest, or one in a local archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError
from lab.core.steps import Step
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.transfer import ImageArchive
from lab.images import cache as cached
from lab.images import registry, savedimage
from lab.images.cache import CachedImage
from lab.images.registry import Reference
from lab.images.registry.reference import api_host


@dataclass(frozen=True)
class AndroidImage:
    """An image on the host, ready to be copied into a VM."""

    archive: ImageArchive
    digest: str
    """What its registry calls it, sha256:…; empty for an archive's."""
    bytes: int

    @property
    def identity(self) -> str:
        """sha256:… of its content: the registry's digest, else the image's own id."""
        return self.digest or self.archive.image_id


def prepare(
    options: AndroidOptions, cache: Path, state: Path, step: Step, fits: Callable[[int], None]
) -> AndroidImage:
    """The image the settings ask for, fetched if it must be. Raises BlockedError, DeadlineError.

    `fits` is told the archive's size in bytes, before anything of it is fetched; it may raise.
    """
    if options.archive is not None:
        saved = _saved(options.archive, state)
        fits(saved.bytes)
        return saved
    obtained = registry.obtain(
        cache,
        Reference.parse(options.image),
        state=state,
        mirror=options.registry,
        digest=options.digest,
        step=step,
        deadline=Deadline.after(options.download_seconds),
        fits=fits,
    )
    fits(obtained.image.manifest.bytes)
    cached.check(obtained.image)
    return _of_cache(obtained.image)


def check(options: AndroidOptions) -> None:
    """Raise UsageError for settings that can name no image; nobody is asked."""
    if options.archive is None:
        api_host(Reference.parse(options.image), options.registry)


def find(options: AndroidOptions, cache: Path, state: Path) -> AndroidImage | None:
    """The same if it is on the host already; asks nobody. None also for an archive that is damaged."""
    if options.archive is not None:
        try:
            return _saved(options.archive, state)
        except LabError:
            return None
    cached = pulled(options, cache, state)
    return _of_cache(cached) if cached else None


def pulled(options: AndroidOptions, cache: Path, state: Path) -> CachedImage | None:
    """The cached image of the name and digest in the settings, whether or not an archive is taken instead."""
    reference = Reference.parse(options.image)
    digest = options.digest or reference.digest
    if not digest and (known := registry.Learned(state).get(reference)):
        digest = known.digest
    return registry.find(cache, digest) if digest else None


def need(options: AndroidOptions, cache: Path, state: Path) -> AndroidImage:
    """As `find`. Raises BlockedError when it is not there."""
    image = find(options, cache, state)
    if image is None:
        raise BlockedError(
            f"the image {options.archive or options.image} is not on this host",
            hint="`invoke lab.up --emulator docker-android` fetches it; emulator.archive names one in a file",
        )
    return image


def _saved(path: Path, state: Path) -> AndroidImage:
    saved = savedimage.read(path, state)
    archive = ImageArchive(path, saved.sha256, saved.reference, saved.image_id, saved.layers)
    return AndroidImage(archive, "", saved.bytes)


def _of_cache(image: CachedImage) -> AndroidImage:
    facts = registry.facts(image)
    archive = ImageArchive(image.path, image.manifest.sha256, facts.reference, facts.image_id, facts.layers)
    return AndroidImage(archive, facts.digest, image.manifest.bytes)

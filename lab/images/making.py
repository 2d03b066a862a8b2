"""How an image comes into the cache: made once, in a folder of its own, then described and sealed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.core.steps import Step
from lab.images import cache as images

M = TypeVar("M", bound=images.Manifest)


def digest_of(sources: Path, builders: Iterable[Path], *more: str) -> str:
    """Hex digest of a recipe: all files below the folder `sources`, lab's modules `builders`, further words.

    A file whose name begins with a dot is no part of it: file managers and editors leave such.
    """
    digest = hashlib.sha256()
    own = sorted(path for path in sources.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in [*own, *builders]:
        digest.update(f"{path.name}\0{files.sha256(path)}\0".encode())
    for word in more:
        digest.update(f"{word}\0".encode())
    return digest.hexdigest()


def newest(cache: Path, recipe_hash: str) -> images.CachedImage | None:
    """The newest complete image made from the recipe of that hash, or None. Reads the cache only."""
    made = [entry for entry in images.entries(cache) if entry.manifest.recipe == recipe_hash]
    return max(made, key=lambda entry: entry.manifest.created, default=None)


def id_of(release: str, recipe_hash: str, versions: Mapping[str, str]) -> str:
    """The id of the image `release` that a recipe makes of packages, given as name to version."""
    words = json.dumps([recipe_hash, dict(versions)], sort_keys=True)
    return images.image_id(release, hashlib.sha256(words.encode()).hexdigest())


def describe(model: type[M], image: Path, **facts: Any) -> M:
    """The manifest of the finished file `image`: name, bytes, hash (unless given), time, and `facts`."""
    size, sha256 = image.stat().st_size, facts.pop("sha256", "") or files.sha256(image)
    created = datetime.now(UTC).replace(microsecond=0)
    return model(file=image.name, bytes=size, sha256=sha256, created=created, **facts)


def make(
    cache: Path,
    image_id: str,
    step: Step,
    fill: Callable[[Path], images.Manifest],
    *,
    again: str = "",
    deadline: Deadline | None = None,
) -> images.CachedImage:
    """The image of that id, made unless it is there. One process makes it, others wait.

    `fill` puts the image into the folder it is given, and returns its manifest; where it raises, nothing of
    the folder stays. With `again` an image that is there must be unchanged: one that is damaged is made anew,
    after a note that says why, and `again`. Raises BusyError, DeadlineError, and what `fill` raises.
    """
    with images.lock(cache, image_id, say=step.note, deadline=deadline):
        entry = images.find(cache, image_id)
        if entry and again and (damage := damage_of(entry)):
            step.note(f"{damage}: {again}")
            entry = None
        if entry is None:
            with files.building(cache / image_id) as work:
                manifest = fill(work)
                images.seal(work, manifest)
            entry = images.CachedImage(cache / image_id, images.Manifest.model_validate(manifest.as_json()))
        return entry


def damage_of(entry: images.CachedImage) -> str:
    """What is wrong with an image that is not as it was sealed; empty when it is."""
    try:
        images.check(entry)
    except BlockedError as error:
        return error.what
    return ""

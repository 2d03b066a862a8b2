"""The image cache: one folder an image, shared by all labs and all kinds of image.

<cache>/<id>/manifest.json   what it is (schema lab.image/1)
<cache>/<id>/<file>          the image itself, read-only
<cache>/downloads/           files on their way in; a folder for an image of several
<cache>/locks/               held locks; a free one leaves no file
<cache>/uses/                which labs stand on an image (lab.images.uses)
<cache>/.<id>.part/          an image being made
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, UsageError
from lab.core.lock import beside, when_free
from lab.images import uses

SCHEMA: Literal["lab.image/1"] = "lab.image/1"
MANIFEST = "manifest.json"
_STAMP = ".verified.json"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
_DOWNLOAD = re.compile(r"(?P<id>[A-Za-z0-9][A-Za-z0-9._+~-]*?)(\.part|\.part\.json|\.lock|\.lock\.holder)?")


class Manifest(BaseModel):
    """What manifest.json says. Sizes are bytes; further fields are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    schema_: Literal["lab.image/1"] = Field(default=SCHEMA, alias="schema")
    id: str
    kind: Literal["guest", "canary", "emulator", "rehearsal", "python"]
    name: str
    recipe: str | None = None
    """Hash of what it was built from; None when it was fetched from `url`."""
    url: str | None = None
    file: str
    format: str
    bytes: int
    sha256: str
    created: AwareDatetime
    packages: dict[str, str] = Field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What manifest.json holds: fields that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class CachedImage:
    """A complete image of the cache: its folder, and what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The image's id, which is its folder's name."""
        return self.manifest.id

    @property
    def path(self) -> Path:
        """The image file."""
        return self.folder / self.manifest.file


@dataclass(frozen=True)
class Removed:
    """A file or folder that was removed, and the bytes it held."""

    path: Path
    bytes: int


def seal(work: Path, manifest: Manifest) -> None:
    """Finish an image folder that is being built: write its manifest, make the image read-only."""
    image = work / manifest.file
    image.chmod(0o444)
    files.write_json(work / MANIFEST, manifest.as_json(), 0o444)
    _stamp(CachedImage(work, manifest))


def entries(cache: Path) -> list[CachedImage]:
    """The complete images of the cache, by id. What lab did not write is not looked at."""
    return [entry for entry in _owned(cache) if _has_file(entry)]


def find(cache: Path, image_id: str) -> CachedImage | None:
    """The complete image of that id, or None."""
    return next((entry for entry in entries(cache) if entry.id == image_id), None)


def disk(cache: Path, image_id: str) -> Path:
    """Where a VM image's disk is, in whatever format it came; a path that is none where it is gone."""
    folder = cache / image_id
    return next(folder.glob("disk.*"), folder / "disk.qcow2")


def check(entry: CachedImage) -> None:
    """Raise BlockedError unless the image is as it was: by size and time, by hash if those changed."""
    if _has_file(entry) and _look(entry) == _read_stamp(entry):
        return
    verify(entry)


def verify(entry: CachedImage) -> None:
    """Hash the image again. Raises BlockedError with expected and observed when it differs."""
    if not entry.path.is_file():
        raise BlockedError(f"image {entry.id} has lost its file {entry.path}", hint=_hint(entry))
    size = entry.path.stat().st_size
    if size != entry.manifest.bytes:
        raise BlockedError(
            f"image {entry.id} is damaged: expected {entry.manifest.bytes} bytes, observed {size}",
            hint=_hint(entry),
            evidence=[entry.path],
        )
    observed = files.sha256(entry.path)
    if observed != entry.manifest.sha256:
        raise BlockedError(
            f"image {entry.id} is damaged: expected sha256 {entry.manifest.sha256}, observed {observed}",
            hint=_hint(entry),
            evidence=[entry.path],
        )
    with contextlib.suppress(OSError):  # a cache that may only be read can be verified too
        _stamp(entry)


@contextlib.contextmanager
def lock(
    cache: Path,
    image_id: str,
    *,
    say: Callable[[str], None] | None = None,
    deadline: Deadline | None = None,
) -> Iterator[None]:
    """Hold one image while it is built, fetched or removed. See lab.core.lock.when_free."""
    with when_free(_lock_path(cache, image_id), f"image {image_id}", say=say, deadline=deadline):
        yield


def mark_use(cache: Path, image_id: str, use: uses.Use) -> None:
    """Say that a lab stands on an image, so that no other state folder's `image.prune` removes it.

    In a cache that may only be read nothing is said: nothing can be removed from it either.
    """
    with contextlib.suppress(PermissionError), lock(cache, image_id):
        uses.mark(cache, image_id, use)


def downloads(cache: Path) -> Path:
    """Where files on their way into the cache are kept."""
    return cache / "downloads"


def prune(cache: Path, in_use: set[str]) -> list[Removed]:
    """Remove the images no lab uses, and what killed builds and downloads left.

    `in_use` holds image ids; those that are marked as used in the cache itself stay, too. Only what lab
    wrote is removed: folders with its manifest, its .part folders, its downloads; and nothing that
    another process holds the lock of.
    """
    removed: list[Removed] = []
    for entry in _owned(cache):
        if entry.id not in in_use:
            removed += _remove(cache, entry.id, [entry.folder], unless_used=True)
    for folder in _children(cache):
        name = folder.name.removeprefix(".").removesuffix(".part")
        if folder.name == f".{name}.part" and _ID.fullmatch(name) and folder.is_dir():
            removed += _remove(cache, name, [folder])
    for name, items in _downloads_by_id(cache).items():
        with contextlib.suppress(BusyError), _lock_if_free(beside(downloads(cache) / name)):
            removed += _remove(cache, name, items)
    return removed


def image_id(name: str, digest: str) -> str:
    """The id of an image: its name and the first 12 digits of a hash. Raises UsageError."""
    identity = f"{name}-{digest[:12]}"
    _check_id(identity)
    return identity


def name_of(image_id: str) -> str:
    """The name in an image's id; the whole of what is none."""
    return image_id.rpartition("-")[0] or image_id


def _owned(cache: Path) -> Iterator[CachedImage]:
    for folder in _children(cache):
        if _ID.fullmatch(folder.name) and folder.is_dir():
            try:
                manifest = Manifest.model_validate(files.read_json(folder / MANIFEST))
            except (ValidationError, ValueError, OSError):
                continue
            if manifest.id == folder.name and Path(manifest.file).name == manifest.file:
                yield CachedImage(folder, manifest)


def _children(folder: Path) -> list[Path]:
    """Sorted, and without symbolic links: they may lead out of the cache."""
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if not item.is_symlink())


def _downloads_by_id(cache: Path) -> dict[str, list[Path]]:
    by_id: dict[str, list[Path]] = {}
    for item in _children(downloads(cache)):
        match = _DOWNLOAD.fullmatch(item.name)
        if match and (item.is_file() or item.is_dir()):
            by_id.setdefault(match["id"], []).append(item)
    return by_id


def _remove(cache: Path, name: str, items: list[Path], *, unless_used: bool = False) -> list[Removed]:
    """Remove what belongs to the image `name`, unless somebody works on it, or a lab was begun on it."""
    removed: list[Removed] = []
    with contextlib.suppress(BusyError), _lock_if_free(_lock_path(cache, name)):
        for item in () if unless_used and uses.of(cache, name) else items:
            size = _size(item)
            if item.is_dir():
                # Under another name first: a removal that is cut off must not look like an image.
                doomed = item.with_name(f".{name}.part") if (item / MANIFEST).exists() else item
                if doomed != item:
                    shutil.rmtree(doomed, ignore_errors=True)
                    item.rename(doomed)
                shutil.rmtree(doomed)
            elif item.exists() and not item.name.endswith((".lock", ".lock.holder")):
                item.unlink()
            else:
                continue
            removed.append(Removed(item, size))
    return removed


def _lock_if_free(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a lock for the block. Raises BusyError at once where another process holds it."""
    return when_free(path, "image.prune", deadline=Deadline.after(0))


def _size(item: Path) -> int:
    items = [item, *item.rglob("*")] if item.is_dir() else [item]
    return sum(path.lstat().st_size for path in items if path.is_file() and not path.is_symlink())


def _lock_path(cache: Path, name: str) -> Path:
    _check_id(name)
    return cache / "locks" / f"{name}.lock"


def _check_id(name: str) -> None:
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is not an image id: letters, digits and . _ + ~ - only")


def _has_file(entry: CachedImage) -> bool:
    return entry.path.is_file() and entry.path.stat().st_size == entry.manifest.bytes


def _look(entry: CachedImage) -> dict[str, Any]:
    facts = entry.path.stat()
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "sha256": entry.manifest.sha256}


def _stamp(entry: CachedImage) -> None:
    files.write_json(entry.folder / _STAMP, _look(entry), files.PUBLIC)


def _read_stamp(entry: CachedImage) -> Any:
    try:
        return files.read_json(entry.folder / _STAMP)
    except (ValueError, OSError):
        return None


def _hint(entry: CachedImage) -> str:
    if entry.manifest.kind == "emulator":
        return "`invoke image.prune` removes it when no lab uses it; `invoke lab.up` pulls it anew"
    again = "image.fetch" if entry.manifest.url else "image.build"
    return f"`invoke image.prune` removes it when no lab uses it; `invoke {again}` makes it anew"

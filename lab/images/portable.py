"""A canary as one file, to be carried to a machine that cannot build it: written the same each time.

The file is a plain tar of three members, in this order: manifest.json, image.tar, vmlinuz. Whoever reads it
trusts nothing in it: each header must be the very one that is written here, so that no member can be a link,
a device, or a path that leads elsewhere; sizes are bounded; what is inside must be what the manifest says,
and the manifest what this lab would have written.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from lab.core import files
from lab.core.deadline import check_cancelled
from lab.core.errors import BlockedError
from lab.core.steps import Step
from lab.images import cache as images
from lab.images import canary, making
from lab.images.canary_manifest import FILE, KERNEL, CanaryManifest
from lab.images.canary_recipe import X86

LIMITS = {images.MANIFEST: 1 << 20, FILE: 256 << 20, KERNEL: 64 << 20}
"""The members and the bytes each may have: several times what they are."""

_BLOCK = 1 << 20
_MAKE = "make it with `invoke image.export canary FILE`, and copy it in binary, whole"


def write(entry: images.CachedImage, target: Path) -> None:
    """Write the image into the file `target`, wholly or not at all. Raises BlockedError when it is damaged.

    The same image gives the same bytes.
    """
    images.verify(entry)
    manifest = _manifest((entry.folder / images.MANIFEST).read_bytes(), entry.folder)
    observed = files.sha256(entry.folder / KERNEL)
    if observed != manifest.kernel:
        raise BlockedError(
            f"the {KERNEL} of image {entry.id} is damaged: expected sha256 {manifest.kernel}, "
            f"observed {observed}",
            hint="remove its folder and build it anew: `invoke image.build canary`",
            evidence=[entry.folder / KERNEL],
        )
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in LIMITS:
            check_cancelled()
            content = (entry.folder / name).read_bytes()
            archive.addfile(_member(name, len(content)), io.BytesIO(content))
    files.write_atomic(target, stream.getvalue(), files.PUBLIC)


def read(path: Path, cache: Path, step: Step) -> tuple[images.CachedImage, bool]:
    """Put the image in the file `path` into the cache; the image, and whether it was not there before.

    Raises BlockedError: it cannot be read, is cut short or damaged, is no such file, holds what this lab
    would not have made, or another recipe's image; the disk is full. The cache is as it was then.
    """
    try:
        with path.open("rb") as stream:
            return _read(stream, path, cache, step)
    except OSError as error:
        if error.filename == str(path):
            raise BlockedError(f"{path} cannot be read: {error.strerror}", hint=_MAKE) from error
        raise


def _read(stream: IO[bytes], path: Path, cache: Path, step: Step) -> tuple[images.CachedImage, bool]:
    manifest = _manifest(b"".join(_blocks(stream, images.MANIFEST, path)), path)
    _require_own(manifest, path)
    imported = False

    def fill(work: Path) -> CanaryManifest:
        nonlocal imported
        files.require_space(cache, sum(LIMITS.values()), f"importing {path.name}")
        _unpack(stream, manifest, work, path)
        imported = True
        return manifest

    entry = making.make(cache, manifest.id, step, fill)
    if not imported:
        _unpack(stream, manifest, None, path)
        images.check(entry)
    return entry, imported


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _size(stream: IO[bytes], name: str, path: Path) -> int:
    """The bytes of the next member, which must be the regular file `name`, and no longer than it may be."""
    header = stream.read(tarfile.BLOCKSIZE)
    try:
        member = tarfile.TarInfo.frombuf(header, "ascii", "surrogateescape")
    except tarfile.TarError as error:
        raise _refused(path, f"where {name} should begin there is {error}") from error
    if not 0 <= member.size <= LIMITS[name]:
        raise _refused(path, f"{member.name!r} of {member.size} bytes is in the place of {name}")
    if header != _member(name, member.size).tobuf(tarfile.USTAR_FORMAT):
        raise _refused(path, f"{member.name!r} of type {member.type!r} is in the place of the file {name}")
    return member.size


def _blocks(stream: IO[bytes], name: str, path: Path) -> Iterator[bytes]:
    """The content of the next member, which must be the file `name`, whole."""
    left = _size(stream, name, path)
    padding = -left % tarfile.BLOCKSIZE
    while left:
        check_cancelled()
        block = stream.read(min(left, _BLOCK))
        if not block:
            raise _refused(path, f"it ends within {name}: {left} bytes are missing")
        yield block
        left -= len(block)
    if stream.read(padding) != bytes(padding):
        raise _refused(path, f"something is hidden after {name}")


def _unpack(stream: IO[bytes], manifest: CanaryManifest, work: Path | None, path: Path) -> None:
    """Check what follows the manifest, to the end; written into the folder `work` where there is one."""
    for name, expected in ((FILE, manifest.sha256), (KERNEL, manifest.kernel)):
        digest, size = hashlib.sha256(), 0
        with (work / name if work else Path(os.devnull)).open("wb") as output:
            for block in _blocks(stream, name, path):
                digest.update(block)
                size += output.write(block)
        if digest.hexdigest() != expected:
            raise _refused(path, f"expected {name} of sha256 {expected}, observed {digest.hexdigest()}")
        if name == FILE and size != manifest.bytes:
            raise _refused(path, f"expected {name} of {manifest.bytes} bytes, observed {size}")
    _require_end(stream, path)


def _require_end(stream: IO[bytes], path: Path) -> None:
    rest = stream.read(tarfile.RECORDSIZE + 1)
    if len(rest) < 2 * tarfile.BLOCKSIZE or len(rest) > tarfile.RECORDSIZE + tarfile.BLOCKSIZE or any(rest):
        raise _refused(path, f"it does not end after {KERNEL}")


def _manifest(content: bytes, path: Path) -> CanaryManifest:
    """What manifest.json says; of another recipe's only that, since another lab may say more in it."""
    try:
        _require_recipe(images.Manifest.model_validate_json(content), path)
        return CanaryManifest.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise _refused(path, f"its manifest is not a canary's: {where} {fault['msg']}".strip()) from error


def _require_recipe(manifest: images.Manifest, path: Path) -> None:
    ours = canary.recipe_hash()
    if manifest.recipe != ours:
        raise BlockedError(
            f"{path} holds a canary of another recipe than this lab's, which could not be used: "
            f"expected {ours[:12]}, observed {(manifest.recipe or 'none')[:12]}",
            hint="export it with the same version of lab as this one, or build it here: "
            "`invoke image.build canary`",
            evidence=[path],
        )


def _require_own(manifest: CanaryManifest, path: Path) -> None:
    """Raise BlockedError unless this lab would have given the image that id and name."""
    image_id = canary.id_of(manifest.packages)
    expected = (image_id, X86.name, canary.reference_of(image_id))
    observed = (manifest.id, manifest.name, manifest.reference)
    if observed != expected:
        raise _refused(path, f"expected {' '.join(expected)}, observed {' '.join(observed)[:200]}")


def _refused(path: Path, why: str) -> BlockedError:
    return BlockedError(f"{path} is no whole image that lab exported: {why}", hint=_MAKE, evidence=[path])

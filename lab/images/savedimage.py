"""A container image in a local archive, as `docker save` writes it: read and checked, never changed.

Two layouts exist, and both have a manifest.json: Docker's own up to version 24 (`<id>.json` beside
the layers) and, since 25, the OCI layout (`blobs/sha256/<digest>`).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lab.core import files, lock
from lab.core.errors import BlockedError, LabError
from lab.images.registry.manifests import LIMIT, parse_config

STAMPS = "saved-images.json"
_MANIFEST = "manifest.json"
_OCI_LAYOUT = "oci-layout"
_HEX = re.compile(r"[0-9a-f]{64}")
_PACKED = {b"\x1f\x8b": "gzip -d", b"\x28\xb5\x2f\xfd": "zstd -d", b"\xfd7zXZ": "xz -d", b"BZh": "bzip2 -d"}
_SAVE = "make it with `docker save --output FILE repository:tag`"


class _SavedImage(BaseModel):
    """One image of manifest.json."""

    model_config = ConfigDict(frozen=True)
    config: str = Field(alias="Config")
    tags: tuple[str, ...] | None = Field(default=None, alias="RepoTags")
    layers: tuple[str, ...] = Field(alias="Layers")


_LISTED = TypeAdapter(list[_SavedImage])


@dataclass(frozen=True)
class SavedImage:
    """What the archive holds. Digests are sha256:…; `sha256` is of the whole file, in hex."""

    path: Path
    bytes: int
    sha256: str
    image_id: str
    layers: tuple[str, ...]
    """Of the unpacked layers, as `docker image inspect` shows them."""
    tags: tuple[str, ...]

    @property
    def reference(self) -> str:
        """What Docker finds it by once it is loaded: its first tag, else its id."""
        return self.tags[0] if self.tags else self.image_id


def read(path: Path, state: Path) -> SavedImage:
    """The one image in the archive `path`, for linux/amd64.

    The configuration is checked against the id, and every layer that manifest.json names must be
    there; Docker checks the layers' content when it loads them. The file's hash is kept in the folder
    `state` and taken anew when size or time changed. Raises BlockedError (no file, no archive, packed,
    cut short, several images, damaged), PlatformError.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(6)
    except OSError as error:
        raise BlockedError(f"the archive {path} cannot be read: {error.strerror}", hint=_SAVE) from error
    for magic, command in _PACKED.items():
        if head.startswith(magic):
            raise BlockedError(f"{path} is compressed", hint=f"unpack it first: `{command} {path}`")
    try:
        with tarfile.open(path, "r:") as archive:
            listed, config = _image(path, archive)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BlockedError(
            f"{path} is not a whole tar archive: {error}", hint=f"copy it again, or {_SAVE}", evidence=[path]
        ) from error
    parsed = parse_config(config, f"the image in {path}")
    if len(parsed.layers) != len(listed.layers):
        raise _damaged(path, f"it has {len(listed.layers)} layers and names {len(parsed.layers)}")
    image_id = hashlib.sha256(config).hexdigest()
    named = _HEX.search(listed.config)
    if named and named.group() != image_id:
        raise _damaged(path, f"its configuration is named {named.group()} and hashes to {image_id}")
    return SavedImage(
        path,
        path.stat().st_size,
        _sha256(path, state),
        f"sha256:{image_id}",
        parsed.layers,
        listed.tags or (),
    )


def _image(path: Path, archive: tarfile.TarFile) -> tuple[_SavedImage, bytes]:
    """What manifest.json says of the image, and its configuration."""
    members = {member.name.removeprefix("./"): member for member in archive}
    if _MANIFEST not in members:
        what = (
            "an OCI layout without Docker's manifest.json" if _OCI_LAYOUT in members else "no image archive"
        )
        raise BlockedError(f"{path} is {what}", hint=_SAVE)
    try:
        listed = _LISTED.validate_json(_content(path, archive, members, _MANIFEST))
    except (ValidationError, ValueError) as error:
        raise _damaged(path, "its manifest.json is not one of `docker save`") from error
    if len(listed) != 1:
        names = ", ".join(tag for image in listed for tag in image.tags or ("one without a tag",))
        raise BlockedError(
            f"{path} holds {len(listed)} images, and lab cannot tell which is meant: {names or 'none'}",
            hint=_SAVE,
        )
    for layer in listed[0].layers:
        if layer not in members:
            raise _damaged(path, f"the layer {layer} is missing")
    return listed[0], _content(path, archive, members, listed[0].config)


def _content(path: Path, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> bytes:
    member = members.get(name)
    stream = archive.extractfile(member) if member and member.isfile() and member.size <= LIMIT else None
    if stream is None:
        raise _damaged(path, f"{name} is missing")
    return stream.read()


def _sha256(path: Path, state: Path) -> str:
    """The file's hash: the one kept for it while size and time are the same."""
    stamps, facts = state / STAMPS, path.stat()
    look = {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    key = str(path.resolve())
    kept = _kept(stamps).get(key)
    if isinstance(kept, dict) and kept.items() >= look.items() and _HEX.fullmatch(str(kept.get("sha256"))):
        return str(kept["sha256"])
    observed = files.sha256(path)
    with lock.when_free(lock.beside(stamps), f"the file {STAMPS}"):
        files.write_json(stamps, _kept(stamps) | {key: look | {"sha256": observed}}, files.PUBLIC)
    return observed


def _kept(stamps: Path) -> dict[str, Any]:
    try:
        kept = files.read_json(stamps)
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _damaged(path: Path, why: str) -> LabError:
    return BlockedError(f"the archive {path} is damaged: {why}", hint=_SAVE, evidence=[path])

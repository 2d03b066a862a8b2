"""An image archive that `docker load` accepts, written without Docker; the same bytes each time.

The image's id is the digest of its configuration, which names the layer's digest, so both are
known before anything is loaded. The layer is compressed inside an uncompressed archive: Docker
copies the archive before it reads the layer, and a small file is cheap to copy. It is compressed by the
library that lab's lock pins: Python's own zlib is another one on each system, and writes other bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import deflate

from lab.formats.cpio import CpioEntry, with_folders

COMPRESSOR = f"deflate {version('deflate')}"
"""What decides the archive's bytes beside this module. Docker's ids do not depend on it."""

_EPOCH = "1970-01-01T00:00:00Z"
_COMPRESSION = 6


@dataclass(frozen=True)
class OciArchive:
    """What was written: `image_id` and `layer` are sha256:… digests."""

    image_id: str
    layer: str
    layer_bytes: int


def write(
    target: Path,
    *,
    reference: str,
    entries: Mapping[str, CpioEntry],
    config: Mapping[str, Any],
    architecture: str = "amd64",
) -> OciArchive:
    """Write one image of one layer.

    `entries` are the files by path without a leading slash; `config` is Docker's own (Entrypoint,
    Env, Labels, Healthcheck with nanoseconds, …); `reference` is repository:tag;
    `architecture` is what its programs run on, in Docker's words.
    """
    layer = _layer(entries)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    described = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": _EPOCH,
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "history": [{"created": _EPOCH, "created_by": "lab"}],
        }
    )
    image_id = hashlib.sha256(described).hexdigest()
    packed = bytes(deflate.gzip_compress(layer, _COMPRESSION))
    name = f"{digest.removeprefix('sha256:')}.tar"
    index = [{"Config": f"{image_id}.json", "RepoTags": [reference], "Layers": [name]}]
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        # In the order a reader wants them.
        for path, data in (("manifest.json", _json(index)), (f"{image_id}.json", described), (name, packed)):
            _add(archive, path, CpioEntry.file(data))
    return OciArchive(f"sha256:{image_id}", digest, len(layer))


def _layer(entries: Mapping[str, CpioEntry]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        for path, entry in with_folders(entries).items():
            _add(layer, path, entry)
    return stream.getvalue()


def _add(archive: tarfile.TarFile, path: str, entry: CpioEntry) -> None:
    member = tarfile.TarInfo(path)
    member.mode = entry.permissions
    if entry.is_link:
        member.type, member.linkname = tarfile.SYMTYPE, entry.data.decode()
        archive.addfile(member)
    elif entry.is_folder:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        member.size = len(entry.data)
        archive.addfile(member, io.BytesIO(entry.data))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

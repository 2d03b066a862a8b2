"""An image's blobs as the archive `docker load` reads; the same bytes for the same image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from lab.core import system
from lab.core.deadline import check_cancelled
from lab.images.registry.manifests import Resolved

_BLOCK = 1 << 20


def write(target: Path, image: Resolved, blobs: Path, report: Callable[[int], None]) -> str:
    """Pack the blobs in the folder `blobs` (named by the hex digits of their digests); the archive's SHA-256.

    Layers stay compressed as the registry has them: Docker unpacks them, and checks the result
    against the configuration. `report` is told the bytes written. Raises BlockedError for a full disk.
    """
    config = f"{image.config.hex}.json"
    layers = [f"{layer.hex}.tar" for layer in image.layers]
    listed = [{"Config": config, "Layers": layers, "RepoTags": [image.reference.tagged]}]
    with system.explained(target.parent), target.open("wb") as stream:
        hashed = _Hashed(stream, report)
        # What tarfile asks of a stream it writes is `write` and `tell`. PAX differs from ustar
        # only where it must: in a layer over 8 GiB.
        with tarfile.TarFile(
            fileobj=cast(IO[bytes], hashed), mode="w", format=tarfile.PAX_FORMAT, copybufsize=_BLOCK
        ) as archive:
            _add(archive, "manifest.json", json.dumps(listed, sort_keys=True, separators=(",", ":")).encode())
            _add(archive, config, blobs / image.config.hex)
            for layer in dict.fromkeys(layer.hex for layer in image.layers):
                _add(archive, f"{layer}.tar", blobs / layer)
    return hashed.digest.hexdigest()


class _Hashed:
    """A stream that is hashed while it is written, so that the archive need not be read again."""

    def __init__(self, stream: IO[bytes], report: Callable[[int], None]) -> None:
        self._stream, self._report = stream, report
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        check_cancelled()
        self.digest.update(data)
        written = self._stream.write(data)
        self._report(self._stream.tell())
        return written

    def tell(self) -> int:
        return self._stream.tell()


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    else:
        member.size = content.stat().st_size
        with content.open("rb") as stream:
            archive.addfile(member, stream)

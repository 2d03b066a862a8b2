"""The base image as VirtualBox needs it: a VDI in the cache, converted once, shared by all labs."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Container
from pathlib import Path

from lab import files, proc
from lab.deadline import Deadline
from lab.errors import BlockedError, UsageError
from lab.images.lock import beside, held

FOLDER = "virtualbox"
"""In the cache folder, beside the images."""

_SECONDS = 900.0
_UUIDS = 0x188
"""Where a VDI header holds its own UUID and that of its last change, 16 bytes each
(QEMU's block/vdi.c and VirtualBox's VDICore.h agree)."""
_NAMESPACE = uuid.UUID("5f1f3c80-3c0f-5d0e-9b55-7a1f2d7a9c11")
_NAME = re.compile(r"(?P<image>.+)-\d+g\.vdi")


def ensure(base: Path, gib: int, cache: Path, image_tool: str = "qemu-img") -> Path:
    """The VDI of `base`, `gib` large as the VM sees it, sparse on disk; made when it is not there.

    Its UUID follows from its name: differences are bound to it, and must fit again after it was
    pruned and converted anew. Raises BlockedError when `base` is missing, UsageError when it is larger.
    """
    target = cache / FOLDER / f"{base.parent.name}-{gib}g.vdi"
    if target.is_file():
        return target
    with held(beside(target), f"converting {base.parent.name}"):
        if target.is_file():
            return target
        if not base.is_file():
            raise BlockedError(
                f"the base image {base} is missing",
                hint="`invoke image.list` shows the images; fetch or build it again",
            )
        needed = int(json.loads(_run(image_tool, "info", "--output=json", base).out)["virtual-size"])
        if gib << 30 < needed:
            raise UsageError(
                f"a disk of {gib} GiB is smaller than its image ({needed / 2**30:.1f} GiB)",
                hint=f"set the disk to at least {-(-needed // 2**30)} GiB",
            )
        files.require_space(target.parent, 3 * base.stat().st_size, "converting the image for VirtualBox")
        _convert(base, gib, target, image_tool)
    return target


def _convert(base: Path, gib: int, target: Path, tool: str) -> None:
    part, grown = target.with_suffix(".part"), target.with_suffix(".grown")
    try:
        # qemu-img grows no VDI: a larger, empty overlay is what is converted.
        _run(tool, "create", "-f", "qcow2", "-b", base.resolve(), "-F", "qcow2", grown, f"{gib}G")
        _run(tool, "convert", "-f", "qcow2", "-O", "vdi", grown, part)
        with part.open("r+b") as stream:
            stream.seek(_UUIDS)
            for what in ("image", "change"):
                stream.write(uuid.uuid5(_NAMESPACE, f"{target.name}:{what}").bytes_le)
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(0o444)
        part.replace(target)
        files.sync_folder(target.parent)
    finally:
        grown.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def prune(cache: Path, keep: Container[str]) -> list[tuple[Path, int]]:
    """Remove the VDIs whose image is not in `keep`: (path, bytes on disk) of each."""
    removed = []
    for path in sorted((cache / FOLDER).glob("*.vdi")):
        named = _NAME.fullmatch(path.name)
        if named and named["image"] not in keep:
            removed.append((path, path.stat().st_blocks * 512))
            path.unlink()
    return removed


def _run(tool: str, *words: str | Path) -> proc.Completed:
    return proc.run([tool, *words], deadline=Deadline.after(_SECONDS))

"""The base image as VirtualBox needs it: a VDI in the cache, converted once, shared by all labs.

VirtualBox converts a published VMDK itself; a qcow2, which lab built on Linux, it cannot read: qemu-img does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import uuid
from collections.abc import Callable, Container
from pathlib import Path

from lab.core import files, proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.core.lock import beside, when_free

FOLDER = "virtualbox"
"""In the cache folder, beside the images."""

_SECONDS = 900.0
_UUIDS = 0x188
"""Where a VDI header holds its own UUID and that of its last change, 16 bytes each
(QEMU's block/vdi.c and VirtualBox's VDICore.h agree)."""
_NAMESPACE = uuid.UUID("5f1f3c80-3c0f-5d0e-9b55-7a1f2d7a9c11")
_NAME = re.compile(r"(?P<image>.+)-\d+g\.vdi")


_VMDK = struct.Struct("<4sIIQ")
"""How a sparse VMDK begins: signature, version, flags, size in sectors (VirtualBox's VMDK.cpp)."""
_SECTOR = 512
_GROWTH = 5
"""A published image is compressed, a VDI is not; and a copy of it is what VirtualBox converts."""

Convert = Callable[[Path, Path, int], None]
"""Has VirtualBox make, of an image that it may write to, a VDI at a place, of so many bytes."""


def ensure(base: Path, gib: int, cache: Path, convert: Convert, image_tool: str = "qemu-img") -> Path:
    """The VDI of `base`, `gib` large as the VM sees it, sparse on disk; made when it is not there.

    Where `base` is a VMDK, by `convert`; else by `image_tool`. Its UUID follows from its name: differences
    are bound to it, and must fit again after it was pruned and converted anew. Raises BlockedError when
    `base` is missing, UsageError when it is larger.
    """
    target = cache / FOLDER / f"{base.parent.name}-{gib}g.vdi"
    if target.is_file():
        return target
    # One at a time of an image, of whatever sizes: VirtualBox knows it by its path.
    with when_free(beside(target.parent / base.parent.name), f"converting {base.parent.name}"):
        if target.is_file():
            return target
        if not base.is_file():
            raise BlockedError(
                f"the base image {base} is missing",
                hint="`invoke image.list` shows the images; fetch or build it again",
            )
        needed = _vmdk_bytes(base)
        by_virtualbox = needed is not None
        if needed is None:
            needed = int(json.loads(_run(image_tool, "info", "--output=json", base).out)["virtual-size"])
        if gib << 30 < needed:
            raise UsageError(
                f"a disk of {gib} GiB is smaller than its image ({needed / 2**30:.1f} GiB)",
                hint=f"set the disk to at least {-(-needed // 2**30)} GiB",
            )
        files.require_space(
            target.parent, _GROWTH * base.stat().st_size, "converting the image for VirtualBox"
        )
        part = target.with_suffix(".part")
        try:
            if by_virtualbox:
                _by_virtualbox(base, gib, part, convert)
            else:
                _by_qemu_img(base, gib, part, image_tool)
            _put_in_place(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _vmdk_bytes(base: Path) -> int | None:
    """How large a sparse VMDK's disk is; None for an image of another format."""
    with base.open("rb") as stream:
        head = stream.read(_VMDK.size)
    if len(head) < _VMDK.size:
        return None
    magic, _, _, sectors = _VMDK.unpack(head)
    return int(sectors) * _SECTOR if magic == b"KDMV" else None


def _by_virtualbox(base: Path, gib: int, part: Path, convert: Convert) -> None:
    """Of a copy: VBoxManage opens an image to be written, and VirtualBox puts a UUID into one without."""
    copy = part.with_suffix(".copy")
    try:
        shutil.copyfile(base, copy)
        convert(copy, part, gib << 30)
    finally:
        copy.unlink(missing_ok=True)


def _by_qemu_img(base: Path, gib: int, part: Path, tool: str) -> None:
    grown = part.with_suffix(".grown")
    try:
        # qemu-img grows no VDI: a larger, empty overlay is what is converted.
        _run(tool, "create", "-f", "qcow2", "-b", base.resolve(), "-F", "qcow2", grown, f"{gib}G")
        _run(tool, "convert", "-f", "qcow2", "-O", "vdi", grown, part)
    finally:
        grown.unlink(missing_ok=True)


def _put_in_place(part: Path, target: Path) -> None:
    """Give the whole VDI `part` the UUIDs of its name, and that name."""
    with part.open("r+b") as stream:
        stream.seek(_UUIDS)
        for what in ("image", "change"):
            stream.write(uuid.uuid5(_NAMESPACE, f"{target.name}:{what}").bytes_le)
        stream.flush()
        os.fsync(stream.fileno())
    part.chmod(0o444)
    part.replace(target)
    files.sync_folder(target.parent)


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

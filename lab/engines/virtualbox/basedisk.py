"""The base image as VirtualBox needs it: a VDI in the cache, converted once, shared by all labs.

VirtualBox converts a published VMDK itself; a qcow2, which lab built on Linux, it cannot read: qemu-img does.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import uuid
from collections.abc import Callable, Container
from pathlib import Path

from lab.core import files
from lab.core.lock import beside, when_free
from lab.engines import images
from lab.engines.images import QemuImg

FOLDER = "virtualbox"
"""In the cache folder, beside the images."""

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
        images.must_exist(base)
        vmdk, tool = _vmdk_bytes(base), QemuImg(image_tool)
        images.must_fit(gib, tool.size(base) if vmdk is None else vmdk)
        files.require_space(
            target.parent, _GROWTH * base.stat().st_size, "converting the image for VirtualBox"
        )
        part = target.with_suffix(".part")
        try:
            if vmdk is None:
                _by_qemu_img(base, gib, part, tool)
            else:
                _by_virtualbox(base, gib, part, convert)
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


def _by_qemu_img(base: Path, gib: int, part: Path, tool: QemuImg) -> None:
    grown = part.with_suffix(".grown")
    try:
        # qemu-img grows no VDI: a larger, empty overlay is what is converted.
        tool.run("convert", "-f", "qcow2", "-O", "vdi", tool.grow(base, grown, gib), part)
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
    return images.prune((cache / FOLDER).glob("*.vdi"), _NAME, keep)

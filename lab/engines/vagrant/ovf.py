"""The OVF and VMDK of a box for VirtualBox; its settings come after the import (plan.virtualbox)."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

from lab.core.errors import LabError
from lab.engines.vagrant.plan import CONTROLLER

DISK = "disk.vmdk"
_SECTOR = 512
_HEADER = struct.Struct("<4s24xQQ")
"""Magic, …, the descriptor's first sector and how many it has."""
_CID = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)

_TEMPLATE = Path(__file__).with_name("box.ovf")
"""Resource types in it are the DMTF's CIM: 3 processors, 4 memory, 20 a controller, 17 a disk, 10 a network
card. """


def text(name: str, gib: int, size: int) -> str:
    """The OVF of a machine whose disk is `gib` large and whose VMDK has `size` bytes."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    return template.format(name=name, capacity=gib << 30, size=size, disk=DISK, controller=CONTROLLER)


def settle(vmdk: Path) -> None:
    """Give the disk's content id, which is random, a value that follows from what the disk holds.

    The id is up to eight hexadecimal digits after `CID=` in the descriptor, a text with room behind it
    whose place and size, in sectors, the file's header tells (VMware, Virtual Disk Format 5.0). Raises
    LabError when it is not there.
    """
    with vmdk.open("r+b") as stream:
        head = stream.read(_HEADER.size)
        magic, place, sectors = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0)
        stream.seek(place * _SECTOR)
        room = stream.read(sectors * _SECTOR) if magic == b"KDMV" else b""
        unsettled, count = _CID.subn(b"CID=00000000", room.rstrip(b"\0"))
        if count != 1 or len(unsettled) > len(room):
            raise LabError(f"{vmdk} is not the VMDK that qemu-img was to write")
        stream.seek(place * _SECTOR)
        stream.write(unsettled.ljust(len(room), b"\0"))
        stream.flush()
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(place * _SECTOR + unsettled.index(b"CID=") + len(b"CID="))
        stream.write(digest[:8].encode())

"""A PC disk as cloud images have it: GPT, a BIOS boot partition with GRUB in it, the root file system.

Made from files, as root or not: no loop device.
"""

from __future__ import annotations

import struct
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline

PARTUUID = "6a0e2c9e-7f0b-4d6c-9a55-0d2f3c1b8e47"
"""Of the root's partition: the first, though it lies behind the other."""

_SECTOR, _BLOCK = 512, 4096
_MIB = 1 << 20
_BIOS_START, _ROOT_START = 2048, 8192
"""In sectors."""
_KERNEL_SECTOR, _DRIVE_CHECK = 0x5C, 0x66
"""Where GRUB's boot.img has core.img's first sector, and a jump that a hard disk does not need (boot.S)."""
_BLOCKLIST = _SECTOR - 12
"""Where core.img's first sector has the place of the rest of it (diskboot.S)."""
_TABLE = """\
label: gpt
first-lba: 2048
1 : start={root}, size={sectors}, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid={uuid}
14 : start={bios}, size={bios_sectors}, type=21686148-6449-6E6F-744E-656564454649
"""
_SECONDS = 600.0


def make(tree: Path, target: Path, mib: int) -> None:
    """Write the compressed qcow2 disk `target` of `mib` MiB, whose root is `tree` with GRUB's files in it."""
    raw = target.with_suffix(".raw")
    with raw.open("wb") as stream:
        stream.truncate(mib * _MIB)
    deadline = Deadline.after(_SECONDS)
    sectors = (mib - 1) * _MIB // _SECTOR - _ROOT_START  # the table's copy is at the disk's end
    table = _TABLE.format(
        root=_ROOT_START,
        sectors=sectors,
        uuid=PARTUUID,
        bios=_BIOS_START,
        bios_sectors=_ROOT_START - _BIOS_START,
    )
    proc.run(["sfdisk", "--quiet", raw], stdin=table, deadline=deadline)
    offset = f"offset={_ROOT_START * _SECTOR},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    words = ["mke2fs", "-q", "-t", "ext4", "-b", str(_BLOCK), "-L", "root", "-E", offset]
    proc.run([*words, "-d", tree, raw, str(sectors * _SECTOR // _BLOCK)], deadline=deadline)
    grub = tree / "boot/grub/i386-pc"
    _embed(raw, (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes())
    proc.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, target], deadline=deadline)
    raw.unlink()


def _embed(raw: Path, boot: bytes, core: bytes) -> None:
    """What grub-bios-setup does: boot.img into the first sector, core.img into the BIOS boot partition."""
    first, rest = bytearray(boot[:_SECTOR]), bytearray(core.ljust(-(-len(core) // _SECTOR) * _SECTOR, b"\0"))
    struct.pack_into("<Q", first, _KERNEL_SECTOR, _BIOS_START)
    first[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<QH", rest, _BLOCKLIST, _BIOS_START + 1, len(rest) // _SECTOR - 1)
    assert len(rest) <= (_ROOT_START - _BIOS_START) * _SECTOR
    with raw.open("r+b") as stream:
        stream.write(first[:440])  # the table is behind it
        stream.seek(_BIOS_START * _SECTOR)
        stream.write(rest)

"""Disk images put together from files: no loop device, no root rights.

A PC disk with two partitions: FAT with SYSLINUX (BIOS), kernel and initramfs; and the root
file system. QEMU's virtio and VirtualBox's SATA both boot it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
BOOT_START = MIB
"""Where the boot partition begins, in bytes."""

_FAT16_LBA, _LINUX = 0x0E, 0x83
_BOOT_CODE_BYTES = 440
_MBR_CODE = (
    Path("/usr/lib/syslinux/mbr/mbr.bin"),
    Path("/usr/lib/SYSLINUX/mbr.bin"),
    Path("/usr/share/syslinux/mbr.bin"),
    Path("/usr/lib/syslinux/bios/mbr.bin"),
)


def root_start(boot_mib: int) -> int:
    """Where the root partition begins, in bytes."""
    return BOOT_START + boot_mib * MIB


def assemble(
    output: Path,
    *,
    boot: Mapping[str, Path],
    root: Path,
    size_gib: int,
    boot_mib: int,
    deadline: Deadline | None = None,
) -> None:
    """Write the qcow2 disk `output`.

    `boot` maps file names (8.3) on the FAT partition to files, `syslinux.cfg` among them; `root` is
    a qcow2 image of the root file system. Helper files are made beside `output`. Raises
    BlockedError when a tool or the disk space is missing, CommandError.
    """
    head = output.with_suffix(".head")
    try:
        _make_head(head, boot, size_gib, boot_mib, deadline)
        proc.run(["qemu-img", "create", "-q", "-f", "qcow2", output, f"{size_gib}G"], deadline=deadline)
        _place("raw", head, output, 0, root_start(boot_mib), deadline)
        start = root_start(boot_mib)
        _place("qcow2", root, output, start, size_gib * GIB - start, deadline)
    finally:
        head.unlink(missing_ok=True)


def _make_head(
    head: Path, boot: Mapping[str, Path], size_gib: int, boot_mib: int, deadline: Deadline | None
) -> None:
    """The first part of the disk: partition table, gap, boot partition."""
    fat = head.with_suffix(".fat")
    try:
        _make_fat(fat, boot, boot_mib, deadline)
        with head.open("wb") as stream:
            stream.write(partition_table(_mbr_code(), size_gib * GIB, boot_mib * MIB))
            stream.seek(BOOT_START)
            stream.write(fat.read_bytes())
    finally:
        fat.unlink(missing_ok=True)


def _make_fat(fat: Path, boot: Mapping[str, Path], boot_mib: int, deadline: Deadline | None) -> None:
    with fat.open("wb") as stream:
        stream.truncate(boot_mib * MIB)
    hidden = str(BOOT_START // SECTOR)
    proc.run(["mkfs.fat", "-F", "16", "-n", "LAB-BOOT", "-h", hidden, fat], deadline=deadline)
    for name, source in boot.items():
        proc.run(["mcopy", "-i", fat, source, f"::/{name}"], deadline=deadline)
    proc.run(["syslinux", "--install", fat], deadline=deadline)


def partition_table(code: bytes, disk_bytes: int, boot_bytes: int) -> bytes:
    """The first sector: boot code, an active FAT partition, a Linux partition for the rest."""
    start = BOOT_START + boot_bytes
    entries = _entry(_FAT16_LBA, BOOT_START, boot_bytes, active=True)
    entries += _entry(_LINUX, start, disk_bytes - start, active=False)
    signature = b"lab\0" + b"\0\0"
    return (
        code[:_BOOT_CODE_BYTES].ljust(_BOOT_CODE_BYTES, b"\0")
        + signature
        + entries.ljust(64, b"\0")
        + b"\x55\xaa"
    )


def _entry(kind: int, start: int, size: int, *, active: bool) -> bytes:
    beyond_chs = b"\xfe\xff\xff"
    flag = 0x80 if active else 0
    return struct.pack("<B3sB3sII", flag, beyond_chs, kind, beyond_chs, start // SECTOR, size // SECTOR)


def _mbr_code() -> bytes:
    for path in _MBR_CODE:
        if path.exists():
            return path.read_bytes()
    raise BlockedError(
        "SYSLINUX's boot code (mbr.bin) is not installed", hint="install the package syslinux-common"
    )


def _place(form: str, source: Path, disk: Path, start: int, size: int, deadline: Deadline | None) -> None:
    """Copy an image into `disk` at byte `start`; zeros stay holes."""
    target = f"driver=raw,offset={start},size={size},file.driver=qcow2,file.file.filename={disk}"
    proc.run(
        [
            "qemu-img", "convert", "-n", "--target-is-zero", "--image-opts", "--target-image-opts",
            f"driver={form},file.filename={source}", target,
        ],
        deadline=deadline,
    )  # fmt: skip

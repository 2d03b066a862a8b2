from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import BlockedError
from lab.images import disk
from lab.images.disk import BOOT_START, GIB, MIB, SECTOR


def entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """(flag, type, first sector, sectors) of the four primary partitions."""
    fields = struct.iter_unpack("<B3sB3sII", sector[446:510])
    return [(flag, kind, start, size) for flag, _, kind, _, start, size in fields]


@given(st.integers(1, 2000), st.integers(1, 512))
def test_the_partitions_fill_the_disk_and_do_not_overlap(size_gib: int, boot_mib: int) -> None:
    sector = disk.partition_table(b"\xfa" * 600, size_gib * GIB, boot_mib * MIB)
    assert len(sector) == SECTOR
    assert sector[:440] == b"\xfa" * 440
    assert sector[510:] == b"\x55\xaa"
    boot, root, *rest = entries(sector)
    assert boot == (0x80, 0x0E, BOOT_START // SECTOR, boot_mib * MIB // SECTOR)
    assert root[:2] == (0, 0x83)
    assert root[2] == boot[2] + boot[3] == disk.root_start(boot_mib) // SECTOR
    assert root[2] + root[3] == size_gib * GIB // SECTOR
    assert rest == [(0, 0, 0, 0)] * 2


def test_a_disk_without_boot_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_MBR_CODE", (tmp_path / "mbr.bin",))
    monkeypatch.setattr(disk, "_make_fat", lambda fat, *_: fat.write_bytes(b""))
    with pytest.raises(BlockedError, match="boot code"):
        disk.assemble(tmp_path / "d.qcow2", boot={}, root=tmp_path / "r", size_gib=1, boot_mib=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-img", "mkfs.fat", "mcopy", "syslinux"))), reason="needs the image tools"
)
def test_assembled_disk_holds_the_boot_files_and_the_root_where_the_table_says(tmp_path: Path) -> None:
    (tmp_path / "root.raw").write_bytes(b"ROOTFS" + b"\0" * (MIB - 6))
    (tmp_path / "syslinux.cfg").write_text("DEFAULT lab\n")
    root, made, raw = tmp_path / "root.qcow2", tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    convert = ["qemu-img", "convert", "-O"]
    subprocess.run([*convert, "qcow2", tmp_path / "root.raw", root], check=True)
    with (tmp_path / "root.raw").open("ab") as stream:
        stream.truncate(GIB - disk.root_start(32))
    subprocess.run([*convert, "qcow2", tmp_path / "root.raw", root], check=True)

    disk.assemble(made, boot={"syslinux.cfg": tmp_path / "syslinux.cfg"}, root=root, size_gib=1, boot_mib=32)

    assert made.stat().st_size < 16 * MIB, "zeros stay holes"
    assert not list(tmp_path.glob("disk.head*"))
    subprocess.run([*convert, "raw", made, raw], check=True)
    with raw.open("rb") as stream:
        boot, rootpart, *_ = entries(stream.read(SECTOR))
        stream.seek(rootpart[2] * SECTOR)
        assert stream.read(6) == b"ROOTFS"
    listing = subprocess.run(
        ["mdir", "-b", "-i", f"{raw}@@{boot[2] * SECTOR}"], check=True, capture_output=True, text=True
    ).stdout
    assert "syslinux.cfg" in listing.lower()

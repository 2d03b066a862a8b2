"""The conversion of a base image with the real qemu-img."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.engines.virtualbox import basedisk

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


def never(*_: object) -> None:
    raise AssertionError("VirtualBox was asked for what it cannot read")


def _image(*words: str | Path) -> str:
    return proc.run(["qemu-img", *words], deadline=Deadline.after(60)).out


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """3 MiB of data in an image of 1 GiB."""
    folder = tmp_path / "image-1"
    folder.mkdir()
    (folder / "raw").write_bytes(bytes(range(256)) * 4096 * 3)
    _image("convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "disk.qcow2")
    _image("resize", "-q", folder / "disk.qcow2", "1G")
    return folder / "disk.qcow2"


def test_the_disk_is_the_image_grown_sparse_and_with_its_own_uuid(base: Path, tmp_path: Path) -> None:
    before = base.read_bytes()
    disk = basedisk.ensure(base, 2, tmp_path / "cache", never)
    said = json.loads(_image("info", "--output=json", disk))
    assert (said["format"], said["virtual-size"]) == ("vdi", 2 << 30)
    assert disk.stat().st_blocks * 512 < 16 << 20
    header = disk.read_bytes()[:512]
    assert header[0x40:0x44] == bytes.fromhex("7f10dabe"), "VDI's signature"
    image, change, link, parent = (
        uuid.UUID(bytes_le=header[place : place + 16]) for place in (0x188, 0x198, 0x1A8, 0x1B8)
    )
    name = "image-1-2g.vdi"
    assert image == uuid.uuid5(basedisk._NAMESPACE, f"{name}:image") != change
    assert link.int == parent.int == 0, "a base image has neither"
    assert "identical" in _image("compare", "-f", "qcow2", "-F", "vdi", base, disk)
    assert base.read_bytes() == before and [path.name for path in disk.parent.iterdir()] == [name]


def test_the_smallest_disk_is_the_image_itself(base: Path, tmp_path: Path) -> None:
    _image("resize", "-q", base, f"{(1 << 30) + 512}")
    with pytest.raises(UsageError, match="1 GiB is smaller") as caught:
        basedisk.ensure(base, 1, tmp_path / "cache", never)
    assert "at least 2 GiB" in caught.value.hint
    assert basedisk.ensure(base, 2, tmp_path / "cache", never).exists()

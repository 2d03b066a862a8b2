"""Boxes, made by the real qemu-img and taken by the real Vagrant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.core import files
from lab.core.errors import LabError, UsageError
from lab.core.steps import Step, Steps
from lab.engines.vagrant import box, ovf
from lab.images.cache import CachedImage, Manifest

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> CachedImage:
    """A disk of 1 GiB with something in it."""
    folder = tmp_path / "images" / "debian-13-0a1b2c3d4e5f"
    folder.mkdir(parents=True)
    raw, disk = tmp_path / "raw", folder / "disk.qcow2"
    with raw.open("wb") as stream:
        stream.write(b"boot" * 1000)
        stream.seek(700 * MIB)
        stream.write(b"root" * 100_000)
        stream.truncate(1 << 30)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    raw.unlink()
    manifest = Manifest(
        id=folder.name,
        kind="guest",
        name="debian-13",
        file=disk.name,
        format="qcow2",
        bytes=disk.stat().st_size,
        sha256=files.sha256(disk),
        created=datetime.now(UTC),
    )
    return CachedImage(folder, manifest)


@pytest.fixture
def step() -> Step:
    with Steps().step("image.box") as made:
        return made


def _unpacked(made: box.VagrantBox, folder: Path) -> Path:
    with tarfile.open(made.path) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _same(disk: Path, image: CachedImage, kind: str) -> None:
    """qemu-img finds the same content; what is beyond the shorter one must be empty."""
    subprocess.run(["qemu-img", "compare", "-q", "-f", kind, "-F", "qcow2", disk, image.path], check=True)


def _size(disk: Path) -> int:
    told = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True)
    return int(json.loads(told.stdout)["virtual-size"])


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
@pytest.mark.parametrize("gib", [1, 3])
def test_a_box_holds_the_image_and_is_the_same_each_time(
    tmp_path: Path, image: CachedImage, step: Step, provider: str, gib: int
) -> None:
    made = box.ensure(tmp_path / "cache", image, provider, gib, step)
    assert made.made
    assert made.name == f"lab/debian-13-0a1b2c3d4e5f-{gib}g"
    box.verify(made)
    again = box.ensure(tmp_path / "cache", image, provider, gib, step)
    assert (again.made, again.sha256) == (False, made.sha256)
    assert box.ensure(tmp_path / "other", image, provider, gib, step).sha256 == made.sha256
    inside = _unpacked(made, tmp_path / "inside")
    assert json.loads((inside / "metadata.json").read_text())["provider"] == provider
    disk = inside / ("box.img" if provider == "libvirt" else ovf.DISK)
    assert _size(disk) == gib << 30
    _same(disk, image, "qcow2" if provider == "libvirt" else "vmdk")
    assert sorted(path.name for path in made.path.parent.iterdir()) == [
        made.path.name,
        f"{made.path.stem}.json",
    ]


def test_a_content_id_of_any_length_settles_to_the_same_disk(tmp_path: Path, image: CachedImage) -> None:
    """qemu-img leaves out its leading zeros: one in sixteen is shorter, and what follows moves."""
    settled = set()
    for cid in (b"fedcba98", b"7654321", b"0"):
        disk = tmp_path / ovf.DISK
        words = ["-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized"]
        subprocess.run(["qemu-img", "convert", *words, image.path, disk], check=True)
        data = disk.read_bytes()
        place, size = (512 * int.from_bytes(data[at : at + 8], "little") for at in (28, 36))
        told = data[place : place + size].rstrip(b"\0")
        begun, _, rest = told.partition(b"CID=")
        told = begun + b"CID=" + cid + rest[rest.index(b"\n") :]
        disk.write_bytes(data[:place] + told.ljust(size, b"\0") + data[place + size :])
        ovf.settle(disk)
        settled.add(disk.read_bytes())
        _same(disk, image, "vmdk")
        assert b"\nparentCID=ffffffff\n" in disk.read_bytes()
    assert len(settled) == 1


def test_the_ovf_says_where_the_disk_is(tmp_path: Path, image: CachedImage, step: Step) -> None:
    inside = _unpacked(box.ensure(tmp_path / "cache", image, "virtualbox", 1, step), tmp_path / "inside")
    root = ElementTree.parse(inside / "box.ovf").getroot()  # noqa: S314 - made a moment ago
    space = "{http://schemas.dmtf.org/ovf/envelope/1}"
    (file,) = root.iter(f"{space}File")
    assert int(file.attrib[f"{space}size"]) == (inside / file.attrib[f"{space}href"]).stat().st_size
    (disk,) = root.iter(f"{space}Disk")
    assert disk.attrib[f"{space}capacity"] == str(1 << 30)


def test_a_box_smaller_than_its_image_is_refused(tmp_path: Path, image: CachedImage, step: Step) -> None:
    subprocess.run(["qemu-img", "resize", "-q", image.path, "5G"], check=True)
    with pytest.raises(UsageError, match="smaller than its image"):
        box.ensure(tmp_path / "cache", image, "libvirt", 4, step)


def test_a_damaged_box_is_noticed_and_one_cut_short_made_anew(
    tmp_path: Path, image: CachedImage, step: Step
) -> None:
    made = box.ensure(tmp_path / "cache", image, "libvirt", 1, step)
    made.path.chmod(0o644)
    with made.path.open("r+b") as stream:
        stream.seek(2000)
        stream.write(b"!")
    with pytest.raises(LabError, match="damaged"):
        box.verify(made)
    with made.path.open("r+b") as stream:
        stream.truncate(1000)
    assert box.ensure(tmp_path / "cache", image, "libvirt", 1, step).made


def test_boxes_go_with_their_image(tmp_path: Path, image: CachedImage, step: Step) -> None:
    made = box.ensure(tmp_path / "cache", image, "libvirt", 1, step)
    assert box.prune(tmp_path / "cache", {image.id}, "libvirt") == []
    assert [path for path, _ in box.prune(tmp_path / "cache", set(), "libvirt")] == [made.path]
    assert list(made.path.parent.iterdir()) == []


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="no Vagrant here (package vagrant)")
@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_vagrant_takes_the_box(tmp_path: Path, image: CachedImage, step: Step, provider: str) -> None:
    made = box.ensure(tmp_path / "cache", image, provider, 1, step)
    env = {**os.environ, "VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    words = ["box", "add", "--name", made.name, "--checksum", made.sha256, "--checksum-type", "sha256"]
    done = subprocess.run(
        ["vagrant", *words, made.path], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run(["vagrant", "box", "list"], env=env, capture_output=True, text=True, check=True)
    assert f"({provider}, 0)" in listed.stdout
    assert made.name in listed.stdout

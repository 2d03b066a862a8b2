"""Boxes: lab's images as Vagrant wants them, one file each in the cache, made once, the same each time.

libvirt: a qcow2 and metadata.json (https://vagrant-libvirt.github.io/vagrant-libvirt/boxes.html).
virtualbox: an OVF and a VMDK (https://developer.hashicorp.com/vagrant/docs/providers/virtualbox/boxes).
No key is in a box, and no user: both come with the seed, each machine's own.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core import files
from lab.core.errors import LabError
from lab.core.lock import beside, when_free
from lab.core.steps import Step
from lab.engines import images
from lab.engines.images import QemuImg
from lab.engines.vagrant import ovf
from lab.images.cache import CachedImage

FOLDER = "vagrant"
"""In the cache folder, beside the images."""

_SECONDS = 1800.0
_NAME = re.compile(r"(?P<image>.+)-(?P<gib>\d+)g\.box")
_EPOCH = 0
"""The time of every member: a box is named by its content, and must not tell when it was made."""


@dataclass(frozen=True)
class VagrantBox:
    """`name` is Vagrant's, by content: another image is another box. `made` is false when it was there."""

    name: str
    path: Path
    sha256: str
    bytes: int
    made: bool


def named(image: str, gib: int) -> str:
    return f"lab/{image}-{gib}g"


def ensure(
    cache: Path, image: CachedImage, provider: str, gib: int, step: Step, image_tool: str = "qemu-img"
) -> VagrantBox:
    """The box of an image for a provider, its disk `gib` large; made when it is not there, or damaged.

    Raises UsageError when the image is larger, BlockedError (disk, tools), LabError when what was
    made does not read back as the image.
    """
    path = _path(cache, image.id, provider, gib)
    if (boxed := known(cache, image.id, provider, gib)) is not None:
        return boxed
    with when_free(beside(path), f"the box of {image.id}", say=step.note):
        if (boxed := known(cache, image.id, provider, gib)) is not None:
            return boxed
        tool = QemuImg(image_tool, _SECONDS)
        needed = tool.size(image.path)
        images.must_fit(gib, needed)
        files.require_space(path.parent, 3 * image.path.stat().st_size, "making the box")
        work, part = path.with_suffix(".making"), path.with_suffix(".part")
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            members = _members(work, image, provider, gib, needed, tool)
            step.note("packing")
            _pack(part, members)
            _check(part, members)
            digest = files.sha256(part)
            part.chmod(0o444)
            part.replace(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            part.unlink(missing_ok=True)
        files.write_json(_sidecar(path), {"sha256": digest, "bytes": path.stat().st_size}, files.PUBLIC)
    return VagrantBox(named(image.id, gib), path, digest, path.stat().st_size, made=True)


def verify(box: VagrantBox) -> None:
    """Hash the box again. Raises LabError when it is not what it was."""
    if files.sha256(box.path) != box.sha256:
        raise LabError(f"the box {box.path} is damaged", hint="remove it: `invoke image.box` makes it anew")


def prune(cache: Path, keep: Container[str], provider: str) -> list[tuple[Path, int]]:
    """Remove the boxes for a provider whose image is not in `keep`: (path, bytes on disk) of each."""
    removed = images.prune((cache / FOLDER / provider).glob("*.box"), _NAME, keep)
    for path, _ in removed:
        _sidecar(path).unlink(missing_ok=True)
    return removed


def known(cache: Path, image: str, provider: str, gib: int) -> VagrantBox | None:
    """The box that was made of the image of that id, or None."""
    path = _path(cache, image, provider, gib)
    try:
        facts: dict[str, Any] = files.read_json(_sidecar(path)) or {}
        size = path.stat().st_size
        if facts["bytes"] == size:
            return VagrantBox(named(image, gib), path, str(facts["sha256"]), size, made=False)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _path(cache: Path, image: str, provider: str, gib: int) -> Path:
    return cache / FOLDER / provider / f"{image}-{gib}g.box"


def _members(
    work: Path, image: CachedImage, provider: str, gib: int, virtual: int, tool: QemuImg
) -> dict[str, Path]:
    """The box's files by name, what is not the image itself made in `work`; metadata.json first."""
    metadata, grown = work / "metadata.json", work / "grown.qcow2"
    if provider == "libvirt":
        files.write_json(metadata, {"provider": "libvirt", "format": "qcow2", "virtual_size": gib})
        if gib << 30 == virtual:
            return {metadata.name: metadata, "box.img": image.path}
        disk = work / "box.img"
        tool.run("convert", "-f", "qcow2", "-O", "qcow2", tool.grow(image.path, grown, gib), disk)
        return {metadata.name: metadata, disk.name: disk}
    files.write_json(metadata, {"provider": "virtualbox"})
    disk = work / ovf.DISK
    words = ["convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    tool.run(*words, tool.grow(image.path, grown, gib), disk)
    ovf.settle(disk)
    described = work / "box.ovf"
    described.write_text(ovf.text(image.id, gib, disk.stat().st_size))
    return {path.name: path for path in (metadata, described, disk)}


def _pack(target: Path, members: Mapping[str, Path]) -> None:
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as box:
        for name, path in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = path.stat().st_size, _EPOCH, 0o644
            with path.open("rb") as stream:
                box.addfile(entry, stream)


def _check(packed: Path, members: Mapping[str, Path]) -> None:
    """What is in the archive is what was put in."""
    with tarfile.open(packed) as box:
        for name, path in members.items():
            stream = box.extractfile(name)
            if stream is None or hashlib.file_digest(stream, "sha256").hexdigest() != files.sha256(path):  # type: ignore[arg-type]
                raise LabError(f"{name} is not in the box {packed} as it was put in")


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")

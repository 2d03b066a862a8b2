"""Disks: the shared base, a lab's difference on it, and giving them up again without touching others'."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import FaultError, finish, text

CONTROLLER = "SATA"


def difference(api: Api, base: str, target: str) -> Any:
    """The medium at `target`, a difference on `base`; made when it is not there.

    `base` is opened read-only, as all differences on it do, and never attached itself.
    """
    kinds = api.library
    for path in (base,) if not Path(target).exists() else (base, target):
        if not Path(path).is_file():  # VirtualBox would only say that it does not know it
            raise FaultError("failed", f"the disk {path} is missing")
    parent = api.vbox.open_medium(base, kinds.DeviceType.hard_disk, kinds.AccessMode.read_only, False)
    if Path(target).exists():
        medium_there = api.vbox.open_medium(
            target, kinds.DeviceType.hard_disk, kinds.AccessMode.read_write, False
        )
        if medium_there._i.parent is not None and medium_there._i.parent.id == parent._i.id:
            return medium_there
        raise FaultError(
            "failed",
            f"the disk {target} was made on another image than {base}",
            str(medium_there._i.location),
        )
    medium = api.vbox.create_medium("VDI", target, kinds.AccessMode.read_write, kinds.DeviceType.hard_disk)
    finish(parent.create_diff_storage(medium, [kinds.MediumVariant.standard]), f"making the disk {target}")
    return medium


def convert(api: Api, source: str, target: str, size: int) -> None:
    """Make `target` a sparse VDI of `size` bytes with what the disk image `source` holds, of any format
    VirtualBox reads. It knows neither of them afterwards: their files are the caller's.
    """
    kinds = api.library
    _close_at(api, source, target)  # a try that was cut short leaves both
    Path(target).unlink(missing_ok=True)
    try:
        origin = _opened(api, source)
        medium = api.vbox.create_medium(
            "VDI", target, kinds.AccessMode.read_write, kinds.DeviceType.hard_disk
        )
        finish(origin.clone_to_base(medium, [kinds.MediumVariant.standard]), f"converting {source}")
        if int(medium.logical_size) != size:
            finish(medium.resize(size), f"giving {target} its size")
    finally:
        _close_at(api, source, target)


def _opened(api: Api, path: str) -> Any:
    kinds = api.library
    try:
        return api.vbox.open_medium(path, kinds.DeviceType.hard_disk, kinds.AccessMode.read_only, False)
    except Exception as error:  # VirtualBox calls an image that it cannot read one that it does not find
        raise FaultError("failed", f"VirtualBox failed: converting {path}", text(error)) from error


def attach(api: Api, machine: Any, base: str, disk: str, seed: str) -> None:
    """Disk and seed on a controller of their own, each only if it is not there yet."""
    kinds = api.library
    if not any(item.name == CONTROLLER for item in machine.storage_controllers):
        controller = machine.add_storage_controller(CONTROLLER, kinds.StorageBus.sata)
        controller.controller_type = kinds.StorageControllerType.intel_ahci
        controller.port_count = 2
    taken = {item.port for item in machine.medium_attachments if item.controller == CONTROLLER}
    if 0 not in taken:  # once snapshots were taken or deleted, another difference is in its place
        machine.attach_device(CONTROLLER, 0, 0, kinds.DeviceType.hard_disk, difference(api, base, disk))
    if 1 not in taken:
        iso = api.vbox.open_medium(seed, kinds.DeviceType.dvd, kinds.AccessMode.read_only, False)
        machine.attach_device(CONTROLLER, 1, 0, kinds.DeviceType.dvd, iso)


def inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder, links resolved."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def remove(media: list[Any], folder: str) -> None:
    """Delete those of `media` that lie in `folder`, differences before what they are made on.

    Any other is closed when nothing needs it, and its file stays.
    """
    for medium in sorted(media, key=_depth, reverse=True):
        place = Path(str(medium.location))
        if inside(str(place), folder) and place.parent.is_dir():
            finish(medium.delete_storage(), f"deleting {medium.location}")
        else:
            _close(medium)


def forget(api: Api, folder: str, base: str, seed: str) -> None:
    """Close what of the lab's is still registered though no machine has it: a crash leaves such."""
    left = [item for item in _all_disks(api) if inside(str(item.location), folder)]
    remove(left, folder)
    _close_at(api, base, seed)


def _close_at(api: Api, *paths: str) -> None:
    for medium in [*api.vbox.hard_disks, *api.vbox.dvd_images]:
        if str(medium.location) in paths:
            _close(medium)


def _all_disks(api: Api) -> list[Any]:
    """Base media and, below them, every difference: the registry lists only the former."""
    disks: list[Any] = []
    todo = list(api.vbox.hard_disks)
    while todo:
        medium = todo.pop()
        disks.append(medium)
        todo += list(medium.children)
    return disks


def _close(medium: Any) -> None:
    # In use by another lab's machine: then it is to stay.
    with contextlib.suppress(Exception):
        medium.close()


def _depth(medium: Any) -> int:
    """How many media it stands on."""
    depth, raw = 0, medium._i
    while (raw := raw.parent) is not None:
        depth += 1
    return depth

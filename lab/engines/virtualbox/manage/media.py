"""Disks: the shared base, a lab's difference on it, and giving them up again without touching others'."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab.core.errors import LabError
from lab.engines.virtualbox.manage import text
from lab.engines.virtualbox.manage.talk import Talk, inside
from lab.engines.virtualbox.worker.media import CONTROLLER

_NO_PARENT = "is not found in the media registry"
_NOTHING = frozenset({"", "none", "emptydrive"})


def convert(talk: Talk, source: str, target: str, size: int) -> None:
    """Make `target` a sparse VDI of `size` bytes with what the disk image `source` holds, of any format
    VirtualBox reads. It knows neither of them afterwards: their files are the caller's.
    """
    _close(talk, source, target)  # a try that was cut short leaves both
    Path(target).unlink(missing_ok=True)
    try:
        talk.run(f"converting {source}", "clonemedium", "disk", source, target, "--format", "VDI")
        talk.run(f"giving {target} its size", "modifymedium", "disk", target, "--resizebyte", str(size))
    finally:
        _close(talk, source, target)


def _close(talk: Talk, *paths: str, kind: str = "disk") -> None:
    for path in filter(None, paths):
        with contextlib.suppress(LabError):  # in use by another lab's machine, or not registered
            talk.run(f"closing {path}", "closemedium", kind, path)


def attach(talk: Talk, uuid: str, base: str, disk: str, seed: str) -> None:
    """Disk and seed on a controller of their own, each only if it is not there yet."""
    described = talk.describe(uuid)
    names = {value for key, value in described.items() if key.startswith("storagecontrollername")}
    if CONTROLLER not in names:
        talk.run(
            "adding the disk controller",
            *("storagectl", uuid, "--name", CONTROLLER, "--add", "sata", "--controller", "IntelAhci"),
            *("--portcount", "2"),
        )
    # Once snapshots were taken or deleted, another difference is in the disk's place.
    if described.get(f"{CONTROLLER}-0-0", "none") in _NOTHING:
        _difference(talk, base, disk)
        _attach(talk, uuid, 0, "hdd", disk)
    if described.get(f"{CONTROLLER}-1-0", "none") in _NOTHING:
        _attach(talk, uuid, 1, "dvddrive", seed)


def _attach(talk: Talk, uuid: str, port: int, kind: str, medium: str) -> None:
    talk.run(
        f"attaching {medium}",
        *("storageattach", uuid, "--storagectl", CONTROLLER, "--port", str(port), "--device", "0"),
        *("--type", kind, "--medium", medium),
    )


def _difference(talk: Talk, base: str, target: str) -> None:
    """Make the disk `target`, a difference on `base`, unless it is there. Raises LabError for another's."""
    for path in (base,) if not Path(target).exists() else (base, target):
        if not Path(path).is_file():  # VirtualBox would only say that it does not know it
            raise LabError(f"the disk {path} is missing")
    if not Path(target).exists():
        talk.run(
            f"making the disk {target}",
            *("createmedium", "disk", "--filename", target, "--diffparent", base, "--format", "VDI"),
        )
        return
    wanted = _about(talk, base).get("UUID")  # first: VirtualBox opens no difference before what it stands on
    try:
        parent = _about(talk, target).get("Parent UUID", "")
    except LabError as error:
        if _NO_PARENT not in error.tail:
            raise
        parent = ""
    if parent != wanted:
        raise LabError(f"the disk {target} was made on another image than {base}")


def _about(talk: Talk, path: str) -> dict[str, str]:
    output = talk.run(f"asking for the disk {path}", "showmediuminfo", "disk", path)
    return next((row for row in text.paragraphs(output) if "UUID" in row), {})  # it may begin with a warning


def disks_in(talk: Talk, folder: str) -> list[text.Disk]:
    """The registered disks that lie in `folder`, differences before what they are made on."""
    known = text.disks(talk.run("asking for the disks", "list", "hdds", "--long"))
    return [disk for disk in _deepest_first(known) if inside(disk.location, folder)]


def remove(talk: Talk, disks: list[text.Disk], folder: str, base: str, seed: str) -> None:
    """Delete `disks`, and what else is registered in `folder`: a crash leaves such.

    `base` and `seed` are closed where nothing needs them any more; their files stay, and so do all others.
    """
    for disk in disks_in(talk, folder):
        delete = ["--delete"] if Path(disk.location).is_file() else []  # else only its name is left
        talk.run(f"deleting {disk.location}", "closemedium", "disk", disk.uuid, *delete)
    for disk in disks:  # VirtualBox let go of them with their VM
        Path(disk.location).unlink(missing_ok=True)
    _close(talk, base)
    _close(talk, seed, kind="dvd")


def _deepest_first(disks: list[text.Disk]) -> list[text.Disk]:
    parents = {disk.uuid: disk.parent for disk in disks}

    def depth(uuid: str) -> int:
        steps = 0
        while (uuid := parents.get(uuid, "")) and steps < len(parents):
            steps += 1
        return steps

    return sorted(disks, key=lambda disk: depth(disk.uuid), reverse=True)

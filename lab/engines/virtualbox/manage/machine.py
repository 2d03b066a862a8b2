"""Making, changing, describing and removing a machine; its snapshots, by name."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from lab.core.errors import LabError
from lab.engines.virtualbox.manage import media, options, power, text
from lab.engines.virtualbox.manage.talk import Talk, is_accessible, must_be_ours, state_of
from lab.engines.virtualbox.worker.machine import GROUP, MARK, OS_TYPE, is_whole


def look(talk: Talk, uuid: str) -> dict[str, Any]:
    described = talk.find(uuid)
    if described is None:
        return {"state": "", "accessible": True, "settings": "", "holder": 0}
    accessible = is_accessible(described)
    return {
        "state": state_of(described) if accessible else "",
        "accessible": accessible,
        "settings": described.get("CfgFile", ""),
        "holder": 0,
    }


def create(talk: Talk, spec: dict[str, Any]) -> None:
    if talk.find(spec["uuid"]) is None:
        _register(talk, spec)
    talk.ours(spec["uuid"], spec["folder"])
    talk.run("marking the VM", "setextradata", spec["uuid"], MARK, spec["uuid"])
    talk.run("setting the VM up", "modifyvm", spec["uuid"], *_hardware(talk, spec), *_devices(talk, spec))
    media.attach(talk, spec["uuid"], spec["base"], spec["disk"], spec["seed"])
    for pair in spec["extra_data"]:
        key, _, value = pair.partition("=")
        talk.run(f"setting {key}", "setextradata", spec["uuid"], key, value)


def _register(talk: Talk, spec: dict[str, Any]) -> None:
    settings = Path(spec["settings"])
    if settings.exists():
        try:
            talk.run(f"opening {settings}", "registervm", settings)
            return
        except LabError:
            if is_whole(settings):
                raise
            # Torn by a crash, before there was anything to lose: kept aside, and made anew.
            settings.replace(settings.with_name(settings.name + ".broken"))
    # createvm names the file after the VM, in folders of its own: made aside, moved, then registered.
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=settings.parent))
    try:
        talk.run(
            "making the VM",
            *("createvm", "--name", spec["name"], "--groups", GROUP, "--ostype", OS_TYPE),
            *("--uuid", spec["uuid"], "--basefolder", aside, *options.created(talk.version)),
        )
        (made,) = aside.rglob("*.vbox")
        made.replace(settings)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    talk.run(f"registering {settings}", "registervm", settings)


def _hardware(talk: Talk, spec: dict[str, Any]) -> list[str]:
    engine = options.execution_engine(talk.version, spec["execution_engine"])
    if engine is None:
        raise LabError(
            f"VirtualBox {talk.normalized} cannot be told how to run a VM's instructions",
            hint="set virtualbox.execution_engine to default, or use VirtualBox 7.1 or newer",
        )
    always = ("pae", "longmode", "hwvirtex", "nestedpaging", "rtcuseutc", "ioapic")
    return [
        *("--cpus", str(spec["cpus"]), "--memory", str(spec["memory_mib"])),
        *("--paravirtprovider", spec["paravirt"]),
        *options.switch([("nested-hw-virt", spec["nested"]), *((name, True) for name in always)]),
        *engine,
    ]


def _devices(talk: Talk, spec: dict[str, Any]) -> list[str]:
    return [
        *("--graphicscontroller", "vmsvga", "--vram", "16"),
        *("--boot1", "disk", "--boot2", "none", "--boot3", "none", "--boot4", "none"),
        *("--nic1", "nat", "--nictype1", "virtio", "--cableconnected1", "on"),
        *options.closed_to_localhost(talk.version),
        *("--uart1", "0x3F8", "4", "--uartmode1", "file", spec["console"]),
        *options.silent(talk.version),
        *options.switch([("usbohci", False), ("usbehci", False), ("usbxhci", False)]),
    ]


def settings(talk: Talk, uuid: str) -> dict[str, Any]:
    described = talk.describe(uuid)
    engine = ""
    if talk.version >= (7, 1):  # VBoxManage sets it, and does not tell it
        with contextlib.suppress(OSError, ElementTree.ParseError):
            engine = text.execution_engine(Path(described.get("CfgFile", "")))
    return settings_of(described) | {"execution_engine": engine, "version": talk.normalized}


def settings_of(described: dict[str, str]) -> dict[str, str]:
    """The settings by lab's names, as VirtualBox says it set them. Accepted is not delivered."""
    return {
        "cpus": described.get("cpus", ""),
        "memory_mib": described.get("memory", ""),
        "nested": described.get("nested-hw-virt", ""),
        "nested_paging": described.get("nestedpaging", ""),
        "paravirt": (described.get("effparavirtprovider") or described.get("paravirtprovider", "")).lower(),
        "uuid": described.get("UUID", ""),
        # 6.1 has no such setting, and tells none.
        "host_loopback": "out of reach" if described.get("localhostReachable") == "0" else "within reach",
    }


def destroy(talk: Talk, uuid: str, folder: str, base: str, seed: str) -> None:
    described = talk.find(uuid)
    disks = media.disks_in(talk, folder)
    if described is not None and is_accessible(described):
        must_be_ours(described, uuid, folder)
        power.power_off(talk, uuid)
        with contextlib.suppress(LabError):
            power.discard(talk, uuid)
    if described is not None:
        talk.run("unregistering the VM", "unregistervm", uuid)
    media.remove(talk, disks, folder, base, seed)


def snapshots(talk: Talk, uuid: str) -> list[dict[str, Any]]:
    """Name, id, time (seconds since 1970, UTC) and whether it holds memory, oldest first."""
    settings = Path(talk.describe(uuid).get("CfgFile", ""))
    try:
        return text.snapshots(settings)
    except (OSError, ElementTree.ParseError) as error:
        raise LabError(f"the VM's settings cannot be read: {error}", evidence=[settings]) from error


def take(talk: Talk, uuid: str, name: str) -> None:
    """Disk, and memory too when it runs; a running VM stands still meanwhile. No-op when there is one.

    VirtualBox itself accepts a name twice.
    """
    if not any(item["name"] == name for item in snapshots(talk, uuid)):
        talk.run(f"taking the snapshot {name}", "snapshot", uuid, "take", name)


def restore(talk: Talk, uuid: str, identity: str) -> None:
    """Make a VM that is off what it was: then it is off, or has saved memory if the snapshot had."""
    talk.run("restoring the snapshot", "snapshot", uuid, "restore", identity)

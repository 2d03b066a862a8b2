"""Making, changing, describing and removing a machine."""

from __future__ import annotations

import contextlib
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from lab.engines.virtualbox.worker import media, power
from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import FaultError, explain

GROUP = "/lab"
OS_TYPE = "Ubuntu_64"
MARK = "lab/uuid"
"""Extra data that says whose machine it is, in VirtualBox's own settings file."""

_PARAVIRT = {"kvm": "KVM", "none": "None", "default": "Default"}
_EXECUTION = {"default": "Default", "hwvirt": "HwVirt", "native": "NativeApi", "interpreter": "Interpreter"}


def look(api: Api, uuid: str) -> dict[str, Any]:
    """What there is: `state` is VirtualBox's own name of it, empty when the machine is not registered."""
    machine = api.find(uuid)
    if machine is None:
        return {"state": "", "accessible": True, "settings": "", "holder": 0}
    if not machine._i.accessible:
        return {"state": "", "accessible": False, "settings": machine._i.settingsFilePath, "holder": 0}
    return {
        "state": api.state(machine),
        "accessible": True,
        "settings": str(machine._i.settingsFilePath),
        "holder": int(machine._i.sessionPID),
    }


def ours(api: Api, uuid: str, folder: str) -> Any:
    """The machine, if it is lab's own. FaultError when there is none, or it is somebody else's."""
    machine = api.known(uuid)
    path = str(machine._i.settingsFilePath)
    if not media.inside(path, folder):
        raise FaultError(
            "foreign", f"the machine {uuid} is not lab's: its settings are in {path}", hint="it is left alone"
        )
    return machine


def create(api: Api, spec: dict[str, Any]) -> None:
    """Register the machine and set all its settings; converges from whatever is there."""
    if api.find(spec["uuid"]) is None:
        _register(api, spec)
    machine = ours(api, spec["uuid"], spec["folder"])
    with api.locked(machine, "write") as session:
        held = session.machine
        try:
            _set(api, held, spec)
        finally:
            # Also what a failure left half done: VirtualBox never lets go of a medium whose
            # attachment was not saved, and the next try goes on from here.
            held.save_settings()


def _set(api: Api, held: Any, spec: dict[str, Any]) -> None:
    held.set_extra_data(MARK, spec["uuid"])
    _hardware(api, held, spec)
    _devices(api, held, spec)
    media.attach(api, held, spec["base"], spec["disk"], spec["seed"])
    for pair in spec["extra_data"]:
        key, _, value = pair.partition("=")
        held.set_extra_data(key, value)


def _register(api: Api, spec: dict[str, Any]) -> None:
    settings = Path(spec["settings"])
    if settings.exists():
        try:
            api.vbox.register_machine(api.open_machine(str(settings)))
            return
        except Exception as error:
            if is_whole(settings):
                raise explain(error, f"opening {settings}") from error
            # Torn by a crash, before there was anything to lose: kept aside, and made anew.
            settings.replace(settings.with_name(settings.name + ".broken"))
    machine = api.create_machine(str(settings), spec["name"], GROUP, OS_TYPE, f"UUID={spec['uuid']}")
    machine.save_settings()
    api.vbox.register_machine(machine)


def is_whole(settings: Path) -> bool:
    """Whether a settings file was written to its end: it is well-formed XML then."""
    try:
        ElementTree.parse(settings)  # noqa: S314 - VirtualBox's own file, in the lab's own folder
    except (ElementTree.ParseError, OSError):
        return False
    return True


def _hardware(api: Api, machine: Any, spec: dict[str, Any]) -> None:
    machine.cpu_count = spec["cpus"]
    machine.memory_size = spec["memory_mib"]
    machine._i.paravirtProvider = api.value("ParavirtProvider", _PARAVIRT[spec["paravirt"]])
    x86 = api.x86(machine)
    for label, on in (("PAE", True), ("LongMode", True), ("HWVirt", spec["nested"])):
        x86.setCPUProperty(api.cpu_property(label), on)
    for label in ("Enabled", "NestedPaging"):
        x86.setHWVirtExProperty(api.value("HWVirtExPropertyType", label), True)
    api.platform(machine).RTCUseUTC = True
    api.firmware(machine).IOAPICEnabled = True  # more than one CPU needs it
    engine = spec["execution_engine"]
    if hasattr(machine._i, "VMExecutionEngine"):
        machine._i.VMExecutionEngine = api.value("VMExecutionEngine", _EXECUTION[engine])
    elif engine != "default":
        raise FaultError(
            "failed",
            f"VirtualBox {api.vbox.version_normalized} cannot be told how to run a VM's instructions",
            hint="set virtualbox.execution_engine to default, or use VirtualBox 7.1 or newer",
        )


def _devices(api: Api, machine: Any, spec: dict[str, Any]) -> None:
    kinds = api.library
    machine.graphics_adapter.graphics_controller_type = kinds.GraphicsControllerType.vmsvga
    machine.graphics_adapter.vram_size = 16
    machine.set_boot_order(1, kinds.DeviceType.hard_disk)
    for position in (2, 3, 4):
        machine.set_boot_order(position, kinds.DeviceType.null)
    card = machine.get_network_adapter(0)
    card.adapter_type = kinds.NetworkAdapterType.virtio
    card.attachment_type = kinds.NetworkAttachmentType.nat
    if hasattr(card.nat_engine._i, "localhostReachable"):  # since 7.0; 6.1 has no such setting
        card.nat_engine._i.localhostReachable = False
    card.cable_connected = True
    card.enabled = True
    port = machine.get_serial_port(0)
    port.path = spec["console"]
    port._i.hostMode = api.value("PortMode", "RawFile")
    port.enabled = True
    api.audio(machine).enabled = False
    for controller in list(machine.usb_controllers):  # a new machine has none
        machine.remove_usb_controller(str(controller.name))


def settings(api: Api, uuid: str) -> dict[str, Any]:
    """What VirtualBox says it set, read back from it. Accepted is not delivered."""
    machine = api.known(uuid)
    x86, raw = api.x86(machine), machine._i
    paging = api.value("HWVirtExPropertyType", "NestedPaging")
    engine = getattr(raw, "VMExecutionEngine", None)
    return {
        "cpus": str(raw.CPUCount),
        "memory_mib": str(raw.memorySize),
        "nested": "on" if x86.getCPUProperty(api.cpu_property("HWVirt")) else "off",
        "nested_paging": "on" if x86.getHWVirtExProperty(paging) else "off",
        "paravirt": api.label("ParavirtProvider", raw.getEffectiveParavirtProvider()).lower(),
        "execution_engine": api.label("VMExecutionEngine", engine).lower() if engine is not None else "",
        "host_loopback": _host_loopback(machine),
        "uuid": str(raw.id),
        "version": str(api.vbox.version_normalized),
    }


def _host_loopback(machine: Any) -> str:
    """Whether the VM can reach the services on the host's loopback, through NAT's gateway."""
    open_ = getattr(machine.get_network_adapter(0).nat_engine._i, "localhostReachable", True)
    return "within reach" if open_ else "out of reach"


def destroy(api: Api, uuid: str, folder: str, base: str, seed: str) -> None:
    """Unregister, and delete the media in `folder`: no other file, and no other machine's registration."""
    if api.find(uuid) is not None:
        machine = ours(api, uuid, folder)
        if machine._i.accessible:
            power.power_off(api, uuid)
            with contextlib.suppress(FaultError):
                power.discard(api, uuid)
            media.remove(_unregister(api, machine), folder)
        else:
            # Its settings file is gone or broken: VirtualBox only knows that there was one.
            machine.unregister(api.library.CleanupMode.unregister_only)
    media.forget(api, folder, base, seed)


def _unregister(api: Api, machine: Any) -> list[Any]:
    until = time.monotonic() + 10
    while True:
        try:
            return list(machine.unregister(api.library.CleanupMode.detach_all_return_hard_disks_only))
        except Exception as error:
            fault = explain(error, "unregistering the VM")
            if fault.kind != "busy" or time.monotonic() > until:
                raise fault from error
        time.sleep(0.1)

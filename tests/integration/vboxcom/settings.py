"""A machine's settings and the objects that show parts of them."""

from __future__ import annotations

from typing import Any

from tests.integration.vboxcom.raw import E_INVALIDARG, INVALID_VM_STATE, ComError, Node, Raw


def fresh(world: Any, name: str, groups: list[str], system: str) -> dict[str, Any]:
    """What a new machine has. The table of the version decides what of it can be seen, and where."""
    number = world.number
    machine = {"name": name, "groups": groups, "OSTypeId": system, "CPUCount": 1, "memorySize": 128}
    if "Default" in world.constants.all_values("VMExecutionEngine"):
        machine["VMExecutionEngine"] = number("VMExecutionEngine", "Default")
    return {
        "IMachine": machine
        | {"paravirtProvider": number("ParavirtProvider", "Default"), "RTCUseUTC": False, "boot": {}},
        "IPlatform": {"RTCUseUTC": False},
        "firmware": {"IOAPICEnabled": False},
        "IAudioAdapter": {"enabled": True},
        "IGraphicsAdapter": {
            "graphicsControllerType": number("GraphicsControllerType", "VBoxVGA"),
            "VRAMSize": 8,
        },
        "INetworkAdapter": {
            "adapterType": number("NetworkAdapterType", "Am79C973"),
            "attachmentType": number("NetworkAttachmentType", "Null"),
            "cableConnected": False,
            "enabled": False,
        },
        "ISerialPort": {"enabled": False, "hostMode": number("PortMode", "Disconnected"), "path": ""},
        "cpu": {},
        "hwvirt": {},
        # The table shows it from 7.0 on. Reachable, so that a worker that says nothing is seen.
        "INATEngine": {"localhostReachable": True},
        "redirects": [],
        "usb": ["OHCI"],
        "extra": {},
        "controllers": [],
        "attachments": [],
    }


class Part(Node):
    """A part of a machine's settings, which can be written when the machine's can."""

    def __init__(self, machine: Any, interface: str, values: dict[str, Any]) -> None:
        super().__init__(machine.world, values, interface)
        self.machine = machine

    def check(self, name: str, write: bool) -> None:
        self.machine.check(name, write)


class Properties:
    """CPU's and HWVirtEx properties, whoever owns them."""

    def _of(self) -> dict[str, Any]:
        raise NotImplementedError

    def _change(self) -> dict[str, Any]:
        raise NotImplementedError

    def call_get_cpu_property(self, number: int) -> bool:
        return bool(self._of()["cpu"].get(str(number), False))

    def call_set_cpu_property(self, number: int, on: bool) -> None:
        self._change()["cpu"][str(number)] = on

    def call_get_hw_virt_ex_property(self, number: int) -> bool:
        return bool(self._of()["hwvirt"].get(str(number), False))

    def call_set_hw_virt_ex_property(self, number: int, on: bool) -> None:
        self._change()["hwvirt"][str(number)] = on


class X86(Properties, Part):
    def _of(self) -> dict[str, Any]:
        return self.machine.settings

    def _change(self) -> dict[str, Any]:
        self.machine.must_be_mutable()
        return self.machine.settings


class Network(Part):
    """NAT's forwards: they can be changed in every state."""

    def call_get_redirects(self) -> list[str]:
        return list(self.machine.settings["redirects"])

    def call_add_redirect(
        self, name: str, protocol: int, host: str, host_port: int, guest: str, guest_port: int
    ) -> None:
        self.machine.must_be_mutable(anyhow=True)
        lines = self.machine.settings["redirects"]
        for other in (line.split(",") for line in lines):
            if name == other[0] or (host, str(host_port)) == (other[2], other[3]):
                raise ComError(E_INVALIDARG, "A NAT rule of this name or host port already exists")
        lines.append(f"{name},{protocol},{host},{host_port},{guest},{guest_port}")

    def call_remove_redirect(self, name: str) -> None:
        self.machine.must_be_mutable(anyhow=True)
        lines = self.machine.settings["redirects"]
        left = [line for line in lines if line.split(",")[0] != name]
        if left == lines:
            raise ComError(E_INVALIDARG, f"There is no NAT rule {name}")
        lines[:] = left


class Parts(Properties):
    """The share of IMachine that hands out its parts."""

    world: Any
    parts: dict[str, Any]
    settings: dict[str, Any]

    def must_be_mutable(self, anyhow: bool = False) -> None:
        raise NotImplementedError

    def part(self, interface: str, values: dict[str, Any]) -> Part:
        return Part(self, interface, values)

    def add_parts(self) -> None:
        """Most only exist in some versions: the table shows which."""

        def of(interface: str, key: str = "") -> Any:
            return lambda: self.part(interface, self.settings[key or interface])

        def platform() -> Part:
            part = self.part("IPlatform", self.settings["IPlatform"])
            part.parts["x86"] = lambda: X86(self, "IPlatformX86", {})
            return part

        def audio() -> Part:
            part = self.part("IAudioSettings", {})
            part.parts["adapter"] = of("IAudioAdapter")
            return part

        self.parts |= {
            "graphicsAdapter": of("IGraphicsAdapter"),
            "audioAdapter": of("IAudioAdapter"),
            "audioSettings": audio,
            "BIOSSettings": of("IBIOSSettings", "firmware"),
            "firmwareSettings": of("IFirmwareSettings", "firmware"),
            "platform": platform,
        }

    def _of(self) -> dict[str, Any]:
        return self.settings

    def _change(self) -> dict[str, Any]:
        self.must_be_mutable()
        return self.settings

    def call_get_network_adapter(self, slot: int) -> Raw:
        assert slot == 0
        card = self.part("INetworkAdapter", self.settings["INetworkAdapter"])
        card.parts["NATEngine"] = lambda: Network(self, "INATEngine", self.settings["INATEngine"])
        return card.raw

    def call_get_serial_port(self, slot: int) -> Raw:
        assert slot == 0
        return self.part("ISerialPort", self.settings["ISerialPort"]).raw

    def call_set_boot_order(self, position: int, kind: int) -> None:
        self.must_be_mutable()
        self.settings["IMachine"]["boot"][str(position)] = kind

    def call_get_effective_paravirt_provider(self) -> int:
        kinds = self.world.constants.all_values("ParavirtProvider")
        asked = self.settings["IMachine"]["paravirtProvider"]
        return kinds["KVM"] if asked == kinds["Default"] else asked

    def call_get_usb_controllers(self) -> list[Raw]:
        return [self.part("IUSBController", {"name": name}).raw for name in self.settings["usb"]]

    def call_remove_usb_controller(self, name: str) -> None:
        self.must_be_mutable()
        if name not in self.settings["usb"]:
            raise ComError(INVALID_VM_STATE, f"There is no USB controller {name}")
        self.settings["usb"].remove(name)

    def call_get_storage_controllers(self) -> list[Raw]:
        return [self.part("IStorageController", item).raw for item in self.settings["controllers"]]

    def call_get_medium_attachments(self) -> list[Raw]:
        return [self.part("IMediumAttachment", {**item}).raw for item in self.settings["attachments"]]

"""What the Vagrantfile is told of the virtual hardware: the same as lab's own engines give a machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.core.versions import in_range
from lab.engines.options import QemuOptions, VirtualBoxOptions
from lab.engines.protocol import Forward, MachineSpec
from lab.engines.qemu.command import NETWORK, Accelerator, cpu_model, forward_options
from lab.engines.vagrant.libvirt import URI
from lab.engines.virtualbox import host
from lab.engines.virtualbox.manage.options import EXECUTION

CONTROLLER = "SATA"
"""The disk controller of the box for VirtualBox; the seed goes beside the disk."""

# QEMU makes these devices before libvirt's own, which have fixed places from slot 1 on: so not those.
_NET_SLOT, _VGA_SLOT = "0x1c", "0x1d"
_FIRST_CLOSED = "7.0"
"""The first VirtualBox whose NAT can be kept from the host's loopback."""


def libvirt(spec: MachineSpec, forwards: Sequence[Forward], options: QemuOptions) -> dict[str, Any]:
    """The domain's type, and the words that QEMU gets after those libvirt makes: the last `-cpu` counts.

    libvirt knows no user network with forwards, nor how to hide cmpxchg16b from an emulated processor.
    """
    accelerator: Accelerator = "kvm" if options.acceleration == "kvm" else "tcg"
    return {
        "uri": URI,
        "driver": "kvm" if accelerator == "kvm" else "qemu",
        "machine_type": "q35",
        # What libvirt would choose by itself: saying so keeps vagrant-libvirt from changing it at each start.
        "cpu_mode": "host-passthrough" if accelerator == "kvm" else "custom",
        "cpu_model": "" if accelerator == "kvm" else "qemu64",
        "emulator": shutil.which(options.binary) or options.binary,
        "arguments": [
            *("-cpu", cpu_model(accelerator, spec.nested, spec.paravirt)),
            *("-netdev", forward_options(forwards)),
            *("-device", f"virtio-net-pci,netdev={NETWORK},romfile=,addr={_NET_SLOT}"),
            *("-device", f"VGA,addr={_VGA_SLOT}"),
        ],
    }


def virtualbox(
    spec: MachineSpec,
    console: Path,
    options: VirtualBoxOptions,
    find: Callable[[str], host.Installed | None] = host.installed,
) -> dict[str, Any]:
    """VBoxManage's words before each boot; `:id` is Vagrant's word for the machine."""
    hardware: dict[str, list[str]] = {
        "paravirtprovider": [spec.paravirt],
        "nested-hw-virt": ["on" if spec.nested else "off"],
        "hwvirtex": ["on"],
        "nestedpaging": ["on"],
        "ioapic": ["on"],  # more than one CPU needs it
        "pae": ["on"],
        "graphicscontroller": ["vmsvga"],
        "vram": ["16"],
        "nictype1": ["virtio"],
        "uart1": ["0x3f8", "4"],
        "uartmode1": ["file", str(console)],
    }
    installed = find(options.home)
    if installed and in_range(installed.version_hint, _FIRST_CLOSED, ""):
        hardware["nat-localhostreachable1"] = ["off"]  # services on the host's loopback are none of the VM's
    if options.execution_engine != "default":
        hardware["vm-execution-engine"] = [EXECUTION[options.execution_engine]]
    words = [["modifyvm", ":id", f"--{name}", *values] for name, values in hardware.items()]
    place = ["--storagectl", CONTROLLER, "--port", "1", "--device", "0", "--type", "dvddrive"]
    words.append(["storageattach", ":id", *place, "--medium", str(spec.seed)])
    for pair in options.extra_data:
        key, _, value = pair.partition("=")
        words.append(["setextradata", ":id", key, value])
    return {"customize": words}

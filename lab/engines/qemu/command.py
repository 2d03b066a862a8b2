"""QEMU's argument list, built from values alone: nothing here touches the machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab.engines.protocol import LOOPBACK, Forward, MachineSpec
from lab.engines.qemu.layout import QemuLayout
from lab.host import facts

Accelerator = Literal["kvm", "tcg"]

DISK_NODE = "disk"
NETWORK = "net0"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

_X86_HOSTS = {"x86_64", "amd64", "i386", "i686"}


@dataclass(frozen=True)
class Hardware:
    """The virtual hardware. Saved memory can only be loaded into the same."""

    machine: str
    """The versioned machine type, so that an upgraded QEMU still offers the same hardware."""
    accelerator: Accelerator
    cpu: str
    cpus: int
    memory_mib: int


def cpu_model(accelerator: Accelerator, nested: bool, paravirt: str) -> str:
    """The CPU's model and features.

    Emulation offers AMD's extension only, and without 5-level paging: a hypervisor in the
    guest may build 4-level nested tables, and its guests then never leave the reset vector.
    """
    if accelerator == "tcg":
        # cmpxchg16b, too, is kept from the guest: QEMU 7.2 with several threads corrupted the flags
        # after it, and Linux's allocator, which uses it where it is offered, panicked.
        return "max,la57=off,cx16=off," + ("svm=on,npt=on" if nested else "svm=off")
    features = ["host"]
    if not nested:
        features += ["vmx=off", "svm=off"]
    if paravirt == "none":
        features.append("kvm=off")
    return ",".join(features)


def hardware(spec: MachineSpec, accelerator: Accelerator, machine: str) -> Hardware:
    """The hardware a machine gets when it is powered on afresh."""
    return Hardware(
        machine=machine,
        accelerator=accelerator,
        cpu=cpu_model(accelerator, spec.nested, spec.paravirt),
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
    )


def accelerator_option(accelerator: Accelerator, host: str) -> str:
    """One emulation thread per virtual CPU where the host's memory ordering allows it."""
    if accelerator == "tcg" and host.lower() in _X86_HOSTS:
        return "tcg,thread=multi"
    return accelerator


def forward_options(forwards: Sequence[Forward], address: str = LOOPBACK) -> str:
    """User networking with its forwards, which listen on `address`: the host's loopback, or QEMU's own
    address in a network namespace. Without IPv6: its gateway is a second way to the host's loopback.
    """
    rules = "".join(f",hostfwd=tcp:{address}:{item.host_port}-:{item.guest_port}" for item in forwards)
    return f"user,id={NETWORK},restrict=off,ipv6=off" + rules


def build(
    binary: str,
    spec: MachineSpec,
    virtual: Hardware,
    layout: QemuLayout,
    forwards: Sequence[Forward],
    *,
    load: str = "",
    sandbox: bool = True,
    host: str = "",
    address: str = LOOPBACK,
) -> list[str]:
    """The whole argument list. `address` is where the forwards listen.

    `load` names a saved state to begin from; it is loaded before the control socket answers,
    so a QEMU that answers has it. `host` is the host's CPU, this machine's by default.
    """
    argv = [binary, "-name", _escape(f"lab-{spec.name}"), "-uuid", spec.uuid]
    argv += ["-nodefaults", "-no-user-config", "-msg", "timestamp=on"]
    argv += ["-pidfile", str(layout.pid)]
    if sandbox:
        argv += ["-sandbox", SANDBOX]
    argv += ["-machine", virtual.machine, "-cpu", virtual.cpu, "-smp", str(virtual.cpus)]
    argv += ["-accel", accelerator_option(virtual.accelerator, host or facts.architecture())]
    argv += ["-m", f"{virtual.memory_mib}M", "-rtc", "base=utc", "-boot", "menu=off,strict=on"]
    argv += _disks(layout.disk, spec.seed)
    argv += ["-netdev", forward_options(forwards, address)]
    argv += _device("virtio-net-pci", netdev="net0", romfile="")  # no boot ROM: it only costs time
    argv += ["-object", "rng-builtin,id=rng0"]
    argv += _device("virtio-rng-pci", rng="rng0")
    argv += ["-display", "none", "-vga", "std"]
    argv += ["-chardev", f"file,id=console,append=on,path={_escape(str(layout.console))}"]
    argv += ["-serial", "chardev:console"]
    argv += ["-chardev", f"socket,id=control,server=on,wait=off,path={_escape(str(layout.socket))}"]
    argv += ["-mon", "chardev=control,mode=control"]
    if load:
        argv += ["-loadvm", load]
    return argv


def _disks(overlay: Path, seed: Path) -> list[str]:
    """The system disk, then the seed. The seed is read-only, so saved states pass it by."""
    disk = {
        "driver": "qcow2",
        "node-name": DISK_NODE,
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(overlay), "discard": "unmap"},
    }
    iso = {
        "driver": "raw",
        "node-name": "seed",
        "read-only": True,
        "file": {"driver": "file", "filename": str(seed), "read-only": True},
    }
    return [
        *("-blockdev", json.dumps(disk)),
        *("-blockdev", json.dumps(iso)),
        *_device("virtio-blk-pci", drive=DISK_NODE, bootindex=0, serial="lab-disk"),
        *_device("virtio-blk-pci", drive="seed", serial="lab-seed"),
    ]


def _device(driver: str, **properties: Any) -> list[str]:
    return ["-device", json.dumps({"driver": driver, **properties})]


def _escape(value: str) -> str:
    """A comma separates options, unless doubled."""
    return value.replace(",", ",,")

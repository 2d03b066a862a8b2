"""What this host is: system, CPU, memory, virtualization. Reads only, starts nothing but sysctl."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from lab import proc
from lab.deadline import Deadline

_EXTENSIONS = ("vmx", "svm")
_KVM_PARAMETERS = ("nested", "ept", "npt", "unrestricted_guest")
_SYSCTLS = (
    "kern.osproductversion",
    "kern.osrelease",
    "kern.bootsessionuuid",
    "kern.hv_support",
    "kern.hv_vmm_present",
    "hw.model",
    "hw.optional.arm64",
    "machdep.cpu.brand_string",
    "machdep.cpu.vendor",
    "machdep.cpu.features",
)
_SYSCTL_SECONDS = 10


@dataclass(frozen=True)
class Cpu:
    """The first CPU. `extensions` are those of virtualization, by their names on this system."""

    model: str = ""
    vendor: str = ""
    extensions: tuple[str, ...] = ()
    hypervisor: bool = False
    """True when this host is itself a virtual machine, as far as its CPU tells."""
    five_level_paging: bool = False
    """In use by the host's kernel: VirtualBox's nested page tables are known to fail with it."""


@dataclass(frozen=True)
class Kvm:
    """Linux's KVM. `device_mode` is octal, empty without /dev/kvm, which proves nothing by existing."""

    modules: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    """`module.parameter` to its value, for those that bear on nesting."""
    device_mode: str = ""
    device_usable: bool = False
    """Whether this user may open it for reading and writing."""


@dataclass(frozen=True)
class Mac:
    model: str
    silicon: bool
    """Apple silicon; else Intel."""


@dataclass(frozen=True)
class HostFacts:
    """Memory is in bytes; `kvm` is None off Linux and `mac` off macOS."""

    os: str
    os_version: str
    kernel: str
    arch: str
    cpu: Cpu
    cpus: int
    memory_total: int
    memory_available: int
    boot_id: str
    """Changes with every boot; empty when the system does not say."""
    kvm: Kvm | None = None
    mac: Mac | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Any) -> HostFacts:
        """The same from JSON. Raises ValueError for what is none."""
        return TypeAdapter(cls).validate_python(found)


def read(root: Path = Path("/")) -> HostFacts:
    """This host's facts. What cannot be read is left empty. `root` is where /proc and /sys are."""
    return _read_mac() if sys.platform == "darwin" else _read_linux(root)


def parse_cpuinfo(text: str) -> Cpu:
    """The first CPU of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    return Cpu(
        model=fields.get("model name", ""),
        vendor=fields.get("vendor_id", ""),
        extensions=tuple(name for name in _EXTENSIONS if name in flags),
        hypervisor="hypervisor" in flags,
        five_level_paging="la57" in flags,
    )


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` lines, as macOS's sysctl prints them."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def parse_os_release(text: str) -> tuple[str, str]:
    """(name, version) of Linux's os-release; a rolling release has no version."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        fields[name.strip()] = value.strip().strip("\"'")
    return fields.get("NAME", "Linux"), fields.get("VERSION_ID", "")


def mac_cpu(values: Mapping[str, str]) -> Cpu:
    """The CPU as macOS's sysctl values tell it. `hv_support` is Hypervisor.framework's own word."""
    features = values.get("machdep.cpu.features", "").lower().split()
    found = [name for name in _EXTENSIONS if name in features]
    if values.get("kern.hv_support") == "1":
        found.append("hv_support")
    silicon = _silicon(values)
    return Cpu(
        model=values.get("machdep.cpu.brand_string", ""),
        vendor=values.get("machdep.cpu.vendor", "Apple" if silicon else ""),
        extensions=tuple(found),
        hypervisor=values.get("kern.hv_vmm_present") == "1" or "vmm" in features,
    )


def mac_facts(values: Mapping[str, str]) -> Mac:
    return Mac(model=values.get("hw.model", ""), silicon=_silicon(values))


def _silicon(values: Mapping[str, str]) -> bool:
    # Not the architecture Python reports: under Rosetta that is x86_64.
    return values.get("hw.optional.arm64") == "1"


def _read_mac() -> HostFacts:
    done = proc.run(["sysctl", *_SYSCTLS], check=False, deadline=Deadline.after(_SYSCTL_SECONDS))
    values = parse_sysctl(done.out)  # names a machine does not know are left out
    mac = mac_facts(values)
    memory = psutil.virtual_memory()
    return HostFacts(
        os="macOS",
        os_version=values.get("kern.osproductversion", ""),
        kernel=values.get("kern.osrelease", ""),
        arch="arm64" if mac.silicon else platform.machine(),
        cpu=mac_cpu(values),
        cpus=os.cpu_count() or 1,
        memory_total=memory.total,
        memory_available=memory.available,
        boot_id=values.get("kern.bootsessionuuid", ""),
        mac=mac,
    )


def _read_linux(root: Path) -> HostFacts:
    name, version = parse_os_release(_text(root / "etc/os-release") or _text(root / "usr/lib/os-release"))
    memory = psutil.virtual_memory()
    return HostFacts(
        os=name,
        os_version=version,
        kernel=platform.release(),
        arch=platform.machine(),
        cpu=parse_cpuinfo(_text(root / "proc/cpuinfo")),
        cpus=os.cpu_count() or 1,
        memory_total=memory.total,
        memory_available=memory.available,
        boot_id=_text(root / "proc/sys/kernel/random/boot_id"),
        kvm=read_kvm(root),
    )


def read_kvm(root: Path = Path("/")) -> Kvm:
    """Linux's KVM modules (built-in ones too), their parameters, and the device."""
    folders = sorted((root / "sys/module").glob("kvm*"))
    parameters = {
        f"{folder.name}.{name}": value
        for folder in folders
        for name in _KVM_PARAMETERS
        if (value := _text(folder / "parameters" / name))
    }
    device = root / "dev/kvm"
    try:
        mode = f"{stat.S_IMODE(device.stat().st_mode):04o}"
    except OSError:
        mode = ""
    return Kvm(
        modules=tuple(folder.name for folder in folders),
        parameters=parameters,
        device_mode=mode,
        device_usable=bool(mode) and os.access(device, os.R_OK | os.W_OK),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

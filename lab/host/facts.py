"""What this host is: system, CPU, memory, virtualization. Reads only, CPUID in a process of its own."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import InterruptedByUser, LabError
from lab.host.cpu import EXTENSIONS, Cpu, parse_cpuinfo
from lab.host.cpuid import signature

_KVM_PARAMETERS = ("nested", "ept", "npt", "unrestricted_guest")
_SYSCTLS = (
    "kern.osproductversion",
    "kern.osrelease",
    "kern.bootsessionuuid",
    "kern.hv_support",
    "kern.hv_vmm_present",
    "hw.model",
    "hw.optional.arm64",
    "sysctl.proc_translated",
    "machdep.cpu.brand_string",
    "machdep.cpu.vendor",
    "machdep.cpu.features",
)
_SYSCTL_SECONDS = 10

_BOARD = ("sys_vendor", "product_name", "bios_vendor")


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
    """The machine, as macOS names it (`MacBookPro18,3`)."""

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

    @property
    def arm64(self) -> bool:
        """Whether its processor is a 64-bit Arm, by Linux's name for it or by macOS's."""
        return self.arch in ("aarch64", "arm64")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Any) -> HostFacts:
        """The same from JSON. Raises ValueError for what is none."""
        return TypeAdapter(cls).validate_python(document)


def read(root: Path = Path("/"), signature: Callable[[], str | None] = signature) -> HostFacts:
    """This host's facts. What cannot be read is left empty.

    `root` is where /proc and /sys are; `signature` reads CPUID's, which says nothing of another root.
    """
    return _read_mac(signature) if sys.platform == "darwin" else _read_linux(root, signature)


def linux_cpu(root: Path = Path("/")) -> Cpu:
    """The first CPU as /proc/cpuinfo has it; an empty one where that cannot be read."""
    return parse_cpuinfo(_text(root / "proc/cpuinfo"))


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
    silicon = _silicon(values)
    features = values.get("machdep.cpu.features", "").lower().split()
    extensions = [name for name in EXTENSIONS if name in features and not silicon]
    if values.get("kern.hv_support") == "1":
        extensions.append("hv_support")
    virtual = values.get("kern.hv_vmm_present") == "1" or "vmm" in features
    # The system says whether there is a hypervisor, not which one it is.
    bare = not virtual and (values.get("kern.hv_vmm_present") == "0" or bool(features))
    return Cpu(
        model=values.get("machdep.cpu.brand_string", ""),
        vendor="Apple" if silicon else values.get("machdep.cpu.vendor", ""),
        extensions=tuple(extensions),
        hypervisor=virtual,
        signature="" if bare else None,
    )


def mac_facts(values: Mapping[str, str]) -> Mac:
    """The Mac as macOS's sysctl values tell it."""
    return Mac(model=values.get("hw.model", ""), silicon=_silicon(values))


def _silicon(values: Mapping[str, str]) -> bool:
    # Not the architecture Python reports: under Rosetta that is x86_64, and the vendor may read Intel's.
    named = values.get("machdep.cpu.brand_string", "").startswith(("Apple", "VirtualApple"))
    return named or "1" in (values.get("hw.optional.arm64"), values.get("sysctl.proc_translated"))


def _sysctls() -> dict[str, str]:
    """What the Mac says of itself: names that it does not know are left out, all where it does not answer."""
    try:
        done = proc.run(["sysctl", *_SYSCTLS], check=False, deadline=Deadline.after(_SYSCTL_SECONDS))
    except InterruptedByUser:
        raise
    except (LabError, OSError):
        return {}
    return parse_sysctl(done.out)


def architecture() -> str:
    """The processor's own: on Apple silicon `arm64`, under Rosetta too, where Python says x86_64."""
    return "arm64" if sys.platform == "darwin" and _silicon(_sysctls()) else platform.machine()


def _read_mac(signature: Callable[[], str | None]) -> HostFacts:
    values = _sysctls()
    mac, cpu = mac_facts(values), mac_cpu(values)
    if cpu.signature is None and not mac.silicon:
        cpu = replace(cpu, signature=signature())
    memory = psutil.virtual_memory()
    return HostFacts(
        os="macOS",
        os_version=values.get("kern.osproductversion", ""),
        kernel=values.get("kern.osrelease", ""),
        arch="arm64" if mac.silicon else platform.machine(),
        cpu=cpu,
        cpus=os.cpu_count() or 1,
        memory_total=memory.total,
        memory_available=memory.available,
        boot_id=values.get("kern.bootsessionuuid", ""),
        mac=mac,
    )


def _read_linux(root: Path, signature: Callable[[], str | None]) -> HostFacts:
    name, version = parse_os_release(_text(root / "etc/os-release") or _text(root / "usr/lib/os-release"))
    memory = psutil.virtual_memory()
    return HostFacts(
        os=name,
        os_version=version,
        kernel=platform.release(),
        arch=platform.machine(),
        cpu=replace(
            linux_cpu(root),
            signature=signature() if root == Path("/") else None,
            board=", ".join(filter(None, (_text(root / "sys/class/dmi/id" / name) for name in _BOARD))),
        ),
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

"""A host and an engine on it, as predictions see them: from facts, from a cell, or as a person writes one."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lab.errors import UsageError
from lab.host.facts import HostFacts
from lab.ladder.model import Cell, Nesting
from lab.versions import numbers

System = Literal["linux", "macos", "windows"]
Vendor = Literal["intel", "amd", "apple", "arm"]
Engine = Literal[
    "virtualbox", "qemu", "docker", "docker-desktop", "hyperkit", "lima", "hyper-v", "arm-emulator"
]
"""What would hold the emulator. lab drives the first two; the others are what people use instead of them."""

SYSTEMS: tuple[System, ...] = get_args(System)
ENGINES: tuple[Engine, ...] = get_args(Engine)

FLAGS = ("virtual", "extensions", "emulated", "la57", "hyperv", "kvm", "nested")
"""The fields of Situation that are true, false or not known, by the words `--host` has for them."""

_SYSTEM_NAMES: dict[System, str] = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
_VENDORS: dict[str, Vendor] = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "Apple": "apple"}
_BY_MODEL: tuple[tuple[str, Vendor], ...] = (("Intel", "intel"), ("AMD", "amd"), ("Apple", "apple"))
_APPLE = re.compile(r"\bApple M([0-9]+)")
_CORE = re.compile(r"\bCore\b.* i[3579]-(1[0-9](?=[0-9]{2})|[2-9](?=[0-9]{3}(?![0-9])))")
_SOFTWARE_CPU = "QEMU TCG"
"""How a processor that QEMU emulates in software names itself."""
_HOST = re.compile(
    r"^(?P<system>linux|macos|windows)-(?P<cpu>intel|amd|arm|m(?=[0-9]))"
    r"(?P<generation>(?<=l)[0-9]{1,2}|(?<=m)[0-9]{1,2})?(?::(?P<release>[0-9][0-9.]*))?$"
)
_FORM = "SYSTEM-CPU[:RELEASE][,WORD...], such as macos-intel:13, macos-m3:15, linux-amd,vm,no-extensions"
_WORDS = {"vm": "virtual"} | {name: name for name in FLAGS if name != "virtual"}
_PLAIN: dict[System, dict[str, bool]] = {
    "linux": {"kvm": True, "nested": True, "hyperv": False},
    "macos": {"kvm": False, "nested": False, "hyperv": False},
    "windows": {"kvm": False, "nested": False},  # Hyper-V: as many Windows have it as have it not
}


@dataclass(frozen=True)
class Situation:
    """Empty and None mean: not known. A prediction that asks for what is not known is not made."""

    system: System
    cpu: Vendor | None = None
    os_version: str = ""
    """The release: of macOS, of Windows (10, 11), of a Linux distribution."""
    generation: int | None = None
    """Of an Apple M chip, or of an Intel Core i."""
    virtual: bool | None = None
    """The host is itself a virtual machine."""
    extensions: bool | None = None
    """The processor offers this system vmx, svm or what Hypervisor.framework needs."""
    emulated: bool | None = None
    """The host's processor is software."""
    la57: bool | None = None
    """The host's kernel uses 5-level paging."""
    hyperv: bool | None = None
    """Windows runs under its own hypervisor (Hyper-V, WSL2, Memory Integrity)."""
    kvm: bool | None = None
    """A kernel really runs under the host's KVM, and the engine is to use it."""
    nested: bool | None = None
    """The KVM module's parameter `nested` is on."""
    engine: str = ""
    engine_version: str = ""

    def on(self, engine: str, version: str = "") -> Situation:
        """The same host with this engine."""
        return dataclasses.replace(self, engine=engine, engine_version=version)

    def running(self, acceleration: str) -> Situation:
        """The same, where the engine is known to use this acceleration (EngineFacts.acceleration)."""
        return dataclasses.replace(self, kvm=acceleration == "kvm") if self.engine == "qemu" else self

    def describe(self) -> str:
        """The host in a phrase."""
        cpu = {"intel": "Intel", "amd": "AMD", "apple": "Apple M", "arm": "Arm", None: "unknown processor"}
        chip = cpu[self.cpu] + (f"{self.generation}" if self.cpu == "apple" and self.generation else "")
        says = {
            "virtual": ("itself a virtual machine", ""),
            "extensions": ("", "no virtualization extensions"),
            "emulated": ("the processor is emulated", ""),
            "la57": ("5-level paging", ""),
            "hyperv": ("Hyper-V active", "Hyper-V off"),
            "kvm": ("KVM works", "no usable KVM"),
            "nested": ("KVM hands virtualization on", ""),
        }
        words = [says[name][0 if getattr(self, name) else 1] for name in FLAGS if self._worth_saying(name)]
        return ", ".join(
            [f"{_SYSTEM_NAMES[self.system]} {self.os_version}".strip() + f" on {chip}", *filter(None, words)]
        )

    def _worth_saying(self, flag: str) -> bool:
        if flag in ("kvm", "nested") and self.system != "linux":
            return False
        if flag == "hyperv" and self.system != "windows":
            return False
        return getattr(self, flag) is not None


def of_host(host: HostFacts, kvm: bool | None, nested: bool | None) -> Situation:
    """This host. `kvm` is the functional probe's answer, `nested` the module's parameter."""
    system: System = "macos" if host.mac else "windows" if host.os == "Windows" else "linux"
    vendor, generation = cpu(host.cpu.model, host.cpu.vendor, host.arch)
    return Situation(
        system,
        vendor,
        host.os_version,
        generation,
        virtual=host.cpu.hypervisor,
        extensions=bool(host.cpu.extensions),
        emulated=_software(host.cpu.model),
        la57=host.cpu.five_level_paging,
        hyperv=None if system == "windows" else False,
        kvm=kvm,
        nested=nested,
    )


def of_cell(cell: Cell, here: Situation | None = None) -> Situation:
    """Where a verdict was given. A cell does not record everything a prediction asks for.

    What it leaves out is taken from `here`, this host, when its system and processor are the
    cell's; else it is not known.
    """
    system: System = next((name for name in SYSTEMS if name == cell.host.system), "linux")
    vendor, generation = cpu(cell.host.cpu)
    release = cell.host.os.rpartition(" ")[2]
    found = Situation(
        system,
        vendor,
        release if numbers(release) else "",
        generation,
        emulated=True if _software(cell.host.cpu) else None,
        engine=cell.engine,
        engine_version=cell.engine_version,
    )
    if here is not None and _machine(here) == _machine(found):
        found = dataclasses.replace(found, **{name: getattr(here, name) for name in FLAGS})
    if cell.engine == "qemu" and cell.acceleration:
        # What QEMU ran with says what the host's KVM was good for then.
        found = found.running(cell.acceleration)
        found = dataclasses.replace(found, nested=cell.nesting is Nesting.HARDWARE if found.kvm else None)
    return found


def parse_host(text: str) -> Situation:
    """A host as `--host` names it: an ordinary one of its kind, but for the words after it.

    Ordinary is: real hardware, extensions on, on Linux a KVM that works and hands virtualization
    on. Raises UsageError.
    """
    kind, *words = text.lower().split(",")
    found = _HOST.match(kind)
    chip = found["cpu"] if found else ""
    if found is None or (chip != "intel" and (found["system"] == "macos") != (chip == "m")):
        raise UsageError(f"`{text}` does not name a host", hint=f"the form is {_FORM}")
    system: System = next(name for name in SYSTEMS if name == found["system"])
    vendor: Vendor = "apple" if chip == "m" else next(name for name in get_args(Vendor) if name == chip)
    flags: dict[str, Any] = {"virtual": False, "extensions": True, "emulated": False, "la57": False}
    flags |= _PLAIN[system]
    if vendor not in ("intel", "amd"):
        flags |= {"kvm": False, "nested": False}  # what is asked about are x86 guests
    for word in words:
        name, value = word.removeprefix("no-"), not word.startswith("no-")
        if name not in _WORDS:
            near = difflib.get_close_matches(name, _WORDS, cutoff=0.4) or list(_WORDS)
            raise UsageError(f"`{word}` says nothing of a host", hint=f"nearest: {', '.join(near)}")
        flags[_WORDS[name]] = value
        if _WORDS[name] == "extensions" and not value:
            flags |= {"kvm": False, "nested": False}
    generation = int(found["generation"]) if found["generation"] else None
    return Situation(system, vendor, found["release"] or "", generation, **flags)


def parse_engine(text: str) -> tuple[str, str]:
    """(engine, version) of `--engine`, such as virtualbox:7.1. Raises UsageError."""
    name, _, version = text.lower().partition(":")
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, cutoff=0.3) or list(ENGINES)
        raise UsageError(f"nothing is known of an engine `{name}`", hint=f"nearest: {', '.join(near)}")
    if version and not numbers(version):
        raise UsageError(f"`{version}` is not a version", hint="such as virtualbox:7.1")
    return name, version


def cpu(model: str, vendor: str = "", arch: str = "") -> tuple[Vendor | None, int | None]:
    """(vendor, generation) of a processor, by what it calls itself and what /proc/cpuinfo says."""
    found = _VENDORS.get(vendor) or next((name for word, name in _BY_MODEL if word in model), None)
    if found is None and (arch or model) in ("aarch64", "arm64"):
        found = "arm"
    match = _APPLE.search(model) or _CORE.search(model)
    return found, int(match[1]) if match else None


def _machine(situation: Situation) -> tuple[object, ...]:
    return situation.system, situation.os_version, situation.cpu, situation.generation


def _software(model: str) -> bool:
    return _SOFTWARE_CPU in model

"""A host and an engine on it, as predictions see them: from facts, from a cell, or as a person writes one."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lab.core.errors import UsageError
from lab.core.similar import choices
from lab.core.versions import numbers
from lab.engines.protocol import SOFTWARE
from lab.host.cpu import Cpu
from lab.host.facts import HostFacts
from lab.model.domain import Cell, Nesting

System = Literal["linux", "macos", "windows"]
Vendor = Literal["intel", "amd", "apple", "arm"]
Engine = Literal[
    "virtualbox", "qemu", "docker", "docker-desktop", "hyperkit", "lima", "hyper-v", "arm-emulator"
]
"""What would hold the emulator. lab drives the first two; the others are what people use instead of them."""

_BY_VAGRANT: dict[str, Engine] = {"libvirt-qemu": "qemu"}
"""Engines as a cell names them on Vagrant's road, and what they are."""

SYSTEMS: tuple[System, ...] = get_args(System)
ENGINES: tuple[Engine, ...] = get_args(Engine)


@dataclass(frozen=True)
class Flag:
    """The words for a field of Situation that is true, false or not known. Pairs: for true, for false."""

    word: str
    """In `--host`, with `no-` before it when false."""
    said: tuple[str, str]
    """Of a host."""
    asked: tuple[str, str]
    """As a condition."""
    system: System | None = None
    """The only one of which it is said; None for all."""


FLAGS: dict[str, Flag] = {
    "virtual": Flag("vm", ("itself a virtual machine", ""), ("in a virtual machine", "on real hardware")),
    "extensions": Flag(
        "extensions", ("", "no virtualization extensions"), ("", "without virtualization extensions")
    ),
    "emulated": Flag("emulated", ("the processor is emulated", ""), ("on an emulated processor", "")),
    "la57": Flag("la57", ("5-level paging", ""), ("with 5-level paging", "")),
    "hyperv": Flag(
        "hyperv", ("Hyper-V active", "Hyper-V off"), ("with Hyper-V active", "with Hyper-V off"), "windows"
    ),
    "kvm": Flag("kvm", ("KVM works", "no usable KVM"), ("with working KVM", "without usable KVM"), "linux"),
    "nested": Flag(
        "nested", ("KVM hands virtualization on", ""), ("KVM's `nested` on", "KVM's `nested` off"), "linux"
    ),
}

SYSTEM_NAMES: dict[System, str] = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
VENDOR_NAMES: dict[Vendor, str] = {"intel": "Intel", "amd": "AMD", "apple": "Apple silicon", "arm": "Arm"}

_VENDORS: dict[str, Vendor] = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "Apple": "apple"}
_BY_MODEL: tuple[tuple[str, Vendor], ...] = (("Intel", "intel"), ("AMD", "amd"), ("Apple", "apple"))
_APPLE = re.compile(r"\bApple M([0-9]+)")
_CORE = re.compile(r"\bCore\b.* i[3579]-(1[0-9](?=[0-9]{2})|[2-9](?=[0-9]{3}(?![0-9])))")
_HOST = re.compile(
    r"^(?P<system>linux|macos|windows)-(?P<cpu>intel|amd|arm|m(?=[0-9]))"
    r"(?P<generation>(?<=l)[0-9]{1,2}|(?<=m)[0-9]{1,2})?(?::(?P<release>[0-9][0-9.]*))?$"
)
_KERNEL = re.compile(r"[0-9]+\.[0-9]+")
_FORM = "SYSTEM-CPU[:RELEASE][,WORD...], such as macos-intel:13, macos-m3:15, linux-amd,vm,no-extensions"
_WORDS = {flag.word: name for name, flag in FLAGS.items()}
_NEEDS: dict[str, tuple[str, ...]] = {"kvm": ("extensions",), "nested": ("extensions", "kvm")}
"""Flags that are false where one they need is."""
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
    """The KVM module's parameter `nested` is on. Never true where KVM is known to hand on nothing."""
    engine: str = ""
    engine_version: str = ""
    distribution: str = ""
    """Linux: its name, `Debian`; no prediction asks for it."""
    kernel: str = ""
    """Linux: the kernel's release, as `uname -r` says it."""

    def __post_init__(self) -> None:
        if self.kvm is False and self.nested:  # whatever its module is set to
            object.__setattr__(self, "nested", False)

    def on(self, engine: str, version: str = "") -> Situation:
        """The same host with this engine."""
        return dataclasses.replace(self, engine=engine, engine_version=version)

    def running(self, acceleration: str) -> Situation:
        """The same, where the engine is known to use this acceleration (EngineFacts.acceleration)."""
        return dataclasses.replace(self, kvm=acceleration == "kvm") if self.engine == "qemu" else self

    def describe(self) -> str:
        """The host in a phrase."""
        chip = VENDOR_NAMES[self.cpu] if self.cpu else "unknown processor"
        if self.cpu == "apple":
            chip = f"Apple M{self.generation or ''}"
        words = [
            flag.said[0 if value else 1]
            for name, flag in FLAGS.items()
            if (value := getattr(self, name)) is not None and flag.system in (None, self.system)
        ]
        return ", ".join([f"{self._system()} on {chip}", *filter(None, words)])

    def _system(self) -> str:
        """`macOS 13`; `Debian 12, Linux 6.1`: a distribution's release is none of Linux."""
        name = SYSTEM_NAMES[self.system]
        if self.system != "linux":
            return f"{name} {self.os_version}".strip()
        kernel = _KERNEL.match(self.kernel)
        running = f"{name} {kernel[0]}" if kernel else name
        if self.distribution:
            return f"{self.distribution} {self.os_version}".strip() + f", {running}"
        return f"{running} (release {self.os_version})" if self.os_version else running


def of_host(host: HostFacts, kvm: bool | None, nested: bool | None) -> Situation:
    """This host. `kvm` is the functional probe's answer, `nested` the module's parameter."""
    system: System = "macos" if host.mac else "linux"
    vendor, generation = cpu(host.cpu.model, host.cpu.vendor, host.arch)
    return Situation(
        system,
        vendor,
        host.os_version,
        generation,
        virtual=host.cpu.hypervisor,
        extensions=bool(host.cpu.extensions),
        emulated=host.cpu.emulated,
        la57=host.cpu.five_level_paging,
        hyperv=False,
        kvm=kvm,
        nested=nested,
        **_linux(system, host.os, host.kernel),
    )


def of_cell(cell: Cell, here: Situation | None = None) -> Situation:
    """Where a verdict was given. A cell does not record everything a prediction asks for.

    What it leaves out is taken from `here`, when its system and processor are the cell's; else it is
    not known. Where a cell's processor does not name its maker, `here` says that, too.
    """
    system: System = next((name for name in SYSTEMS if name == cell.host.system), "linux")
    vendor, generation = cpu(cell.host.cpu)
    name, _, release = cell.host.os.rpartition(" ")
    known = bool(numbers(release))
    situation = Situation(
        system,
        vendor,
        release if known else "",
        generation,
        emulated=_host_emulated(cell),
        engine=_BY_VAGRANT.get(cell.engine, cell.engine),
        engine_version=cell.engine_version,
        **_linux(system, name if known else cell.host.os, cell.host.kernel),
    )
    if here is not None and _same_machine(here, situation):
        flags = {flag: getattr(here, flag) for flag in FLAGS}
        situation = dataclasses.replace(situation, cpu=here.cpu, generation=here.generation, **flags)
    if situation.engine == "qemu" and cell.acceleration:
        # What QEMU ran with says what the host's KVM was good for then.
        situation = situation.running(cell.acceleration)
        situation = dataclasses.replace(
            situation, nested=cell.nesting is Nesting.HARDWARE if situation.kvm else None
        )
    return situation


def parse_host(text: str) -> Situation:
    """A host as `--host` names it: an ordinary one of its kind, but for the words after it.

    Ordinary is: real hardware, extensions on, on Linux a KVM that works and hands virtualization
    on. Raises UsageError.
    """
    kind, *words = text.lower().split(",")
    match = _HOST.match(kind)
    chip = match["cpu"] if match else ""
    if match is None or (chip != "intel" and (match["system"] == "macos") != (chip == "m")):
        raise UsageError(f"`{text}` does not name a host", hint=f"the form is {_FORM}")
    system: System = next(name for name in SYSTEMS if name == match["system"])
    vendor: Vendor = "apple" if chip == "m" else next(name for name in get_args(Vendor) if name == chip)
    flags: dict[str, Any] = {"virtual": False, "extensions": True, "emulated": False, "la57": False}
    flags |= _PLAIN[system]
    if vendor not in ("intel", "amd"):
        flags |= {"kvm": False, "nested": False}  # what is asked about are x86 guests
    asked: dict[str, bool] = {}
    for word in words:
        name, value = word.removeprefix("no-"), not word.startswith("no-")
        if name not in _WORDS:
            raise UsageError(f"`{word}` says nothing of a host", hint=f"nearest: {choices(name, _WORDS)}")
        if asked.setdefault(_WORDS[name], value) != value:
            raise UsageError(f"a host cannot be `{name}` and `no-{name}`")
    for name, needs in _NEEDS.items():
        if asked.get(name) and (missing := [need for need in needs if asked.get(need) is False]):
            raise UsageError(f"a host that is `no-{FLAGS[missing[0]].word}` is not `{FLAGS[name].word}`")
        if any(asked.get(need) is False for need in needs):
            flags[name] = False
    flags |= asked
    generation = int(match["generation"]) if match["generation"] else None
    return Situation(system, vendor, match["release"] or "", generation, **flags)


def parse_engine(text: str) -> tuple[str, str]:
    """(engine, version) of `--engine`, such as virtualbox:7.1. Raises UsageError."""
    name, _, version = text.lower().partition(":")
    if name not in ENGINES:
        raise UsageError(f"nothing is known of an engine `{name}`", hint=f"nearest: {choices(name, ENGINES)}")
    if version and not numbers(version):
        raise UsageError(f"`{version}` is not a version", hint="such as virtualbox:7.1")
    return name, version


def cpu(model: str, vendor: str = "", arch: str = "") -> tuple[Vendor | None, int | None]:
    """(vendor, generation) of a processor, by what it calls itself and what /proc/cpuinfo says."""
    maker = _VENDORS.get(vendor) or next((name for word, name in _BY_MODEL if word in model), None)
    if maker is None and (arch or model) in ("aarch64", "arm64"):
        maker = "arm"
    match = _APPLE.search(model) or _CORE.search(model)
    return maker, int(match[1]) if match else None


def _linux(system: System, name: str, kernel: str) -> dict[str, Any]:
    """What is said of a Linux host only."""
    if system != "linux":
        return {}
    return {"distribution": name.removesuffix(" GNU/Linux"), "kernel": kernel}


def _same_machine(here: Situation, other: Situation) -> bool:
    """As far as a cell can tell: what its processor calls itself may name no maker."""
    if (here.system, here.os_version) != (other.system, other.os_version):
        return False
    if other.emulated and not here.emulated:  # an emulated processor takes any name
        return False
    return other.cpu is None or (here.cpu, here.generation) == (other.cpu, other.generation)


def _host_emulated(cell: Cell) -> bool | None:
    """Whether the host's own processor is software, as far as the cell says so of no other in the chain."""
    below = cell.acceleration in SOFTWARE or cell.nesting is Nesting.EMULATED
    return True if (cell.emulated and not below) or Cpu(cell.host.cpu).emulated else None

"""A processor in the system's words: its name, what it has for virtualization, whether it is software."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lab.host.cpuid import HARDWARE_SIGNATURES, SOFTWARE_SIGNATURES

EXTENSIONS = ("vmx", "svm")
"""Flags of virtualization on x86: VT-x, AMD-V."""
EL2 = "el2"
"""What stands for them on arm64: the exception level in which the kernel was started, and KVM works."""
ARM_MAKERS = {
    0x41: "Arm",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
"""Implementers of arm64 processors, by their number in MIDR_EL1 (Linux: arch/arm64/include/asm/cputype.h)."""
_QEMU_MAX = (0x00, 0x051)
"""Implementer and part of QEMU's own processor `max`, which is always software (target/arm/tcg/cpu64.c)."""
_SOFTWARE_NAMES = ("QEMU TCG", "VirtualApple")
"""What an emulated processor may call itself or its maker: QEMU's `max`, and Rosetta. Or any other name."""
_EMULATORS_BOARDS = re.compile(r"qemu|bochs|seabios", re.IGNORECASE)


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
    signature: str | None = None
    """CPUID's hypervisor signature, such as KVMKVMKVM; empty on bare hardware, None where it is not known."""
    board: str = ""
    """Linux: what the firmware says of board and BIOS."""

    @property
    def emulated(self) -> bool | None:
        """Whether it is software; None where nothing shows that it is not.

        The signature says it, and never the model alone: QEMU emulates a processor under any name
        (`-accel tcg -cpu EPYC`). A machine without a hypervisor on an emulator's own board hides one, or
        is wholly emulated (Bochs).
        """
        if self.signature in SOFTWARE_SIGNATURES or any(
            name in text for name in _SOFTWARE_NAMES for text in (self.model, self.vendor)
        ):
            return True
        # QEMU emulates no processor of Apple's.
        if self.vendor == ARM_MAKERS[0x61] and self.model.startswith("Apple, part"):
            return False
        bare = self.signature == "" and not self.hypervisor and not _EMULATORS_BOARDS.search(self.board)
        return False if bare or self.signature in HARDWARE_SIGNATURES else None


def arm_cpu(fields: Mapping[str, str]) -> Cpu:
    """An arm64 CPU, which has numbers and no name. Its extensions are not among what /proc/cpuinfo has."""
    try:
        maker, part = int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    except ValueError:
        return Cpu()
    if (maker, part) == _QEMU_MAX:
        return Cpu(model="QEMU TCG max", vendor="QEMU")
    vendor = ARM_MAKERS.get(maker, f"implementer {maker:#04x}")
    return Cpu(model=f"{vendor}, part {part:#05x}", vendor=vendor)


def parse_cpuinfo(text: str) -> Cpu:
    """The first CPU of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if "CPU implementer" in fields and "CPU part" in fields:
        return arm_cpu(fields)
    flags = fields.get("flags", "").split()
    return Cpu(
        model=fields.get("model name", ""),
        vendor=fields.get("vendor_id", ""),
        extensions=tuple(name for name in EXTENSIONS if name in flags),
        hypervisor="hypervisor" in flags,
        five_level_paging="la57" in flags,
    )

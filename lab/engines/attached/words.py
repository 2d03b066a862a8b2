"""What a machine is, in words: real hardware, or a virtual machine and of what."""

from __future__ import annotations

from typing import Literal

from lab.engines.attached.link import AttachedLink, Found
from lab.host.cpuid import SOFTWARE_SIGNATURES
from lab.model.domain import BARE_METAL

_BY_SIGNATURE = {
    "KVMKVMKVM": "KVM",
    "Microsoft Hv": "Hyper-V",
    "VMwareVMware": "VMware",
    "VBoxVBoxVBox": "VirtualBox",
    "XenVMMXenVMM": "Xen",
    "bhyve bhyve": "bhyve",
    "prl hyperv": "Parallels",
    " lrpepyh vr": "Parallels",
    "lrpepyh vr": "Parallels",
    "VirtualApple": "Apple",
    "TCGTCGTCGTCG": "QEMU's emulation",
}
_BY_WORD = {
    "kvm": "KVM",
    "amazon": "KVM",
    "google": "KVM",
    "qemu": "QEMU's emulation",
    "microsoft": "Hyper-V",
    "vmware": "VMware",
    "oracle": "VirtualBox",
    "parallels": "Parallels",
    "apple": "Apple",
    "xen": "Xen",
    "bhyve": "bhyve",
}
"""systemd-detect-virt's words."""


def under(signature: str | None, word: str, kernel: str) -> str:
    """What the machine is a VM of; empty on real hardware, `?` where nothing tells.

    `signature` is CPUID's, `word` systemd-detect-virt's, `kernel` its release. The signature comes first:
    the word is from the firmware's tables, too, which KVM and plain emulation share.
    """
    if "microsoft" in kernel.lower() or word == "wsl":
        return "Hyper-V"
    if signature:
        return _BY_SIGNATURE.get(signature, signature.strip())
    if word in _BY_WORD:
        return _BY_WORD[word]
    return "" if signature == "" or word == "none" else "?"


def described(found: Found) -> str:
    """What the machine is, in a phrase."""
    if found.wsl:
        return "WSL2 under Hyper-V"
    if not found.under:
        return BARE_METAL
    return "a machine of an unknown kind" if found.under == "?" else f"a VM under {found.under}"


def acceleration(found: Found) -> str:
    """How the machine's own instructions run (EngineFacts.acceleration)."""
    if found.facts.cpu.signature in SOFTWARE_SIGNATURES:
        return "tcg"
    return BARE_METAL if not found.under else "unknown" if found.under == "?" else found.under.lower()


def nesting(found: Found) -> Literal["hardware", "emulated", "none"]:
    """What provides the virtualization extensions that a VM was given; none on real hardware, too."""
    if not found.under or not found.facts.cpu.extensions:
        return "none"
    return "emulated" if found.facts.cpu.signature in SOFTWARE_SIGNATURES else "hardware"


def version(link: AttachedLink) -> str:
    """EngineFacts.version: what the machine is, how it is reached, and its Docker."""
    kind = described(link.found) if link.found else "not looked at yet"
    return ", ".join([kind, "here" if link.here else "by SSH", *([str(link.docker)] if link.docker else [])])

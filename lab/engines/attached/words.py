"""What a machine is, in words: real hardware, or a virtual machine and of what."""

from __future__ import annotations

from typing import Literal

from lab.engines.attached.link import AttachedLink, MachineFacts
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


def described(facts: MachineFacts) -> str:
    """What the machine is, in a phrase."""
    if facts.wsl:
        return "WSL2 under Hyper-V"
    if not facts.under:
        return BARE_METAL
    return "a machine of an unknown kind" if facts.under == "?" else f"a VM under {facts.under}"


def acceleration(facts: MachineFacts) -> str:
    """How the machine's own instructions run (EngineFacts.acceleration)."""
    if facts.facts.cpu.signature in SOFTWARE_SIGNATURES:
        return "tcg"
    return BARE_METAL if not facts.under else "unknown" if facts.under == "?" else facts.under.lower()


def nesting(facts: MachineFacts) -> Literal["hardware", "emulated", "none"]:
    """What provides the virtualization extensions that a VM was given; none on real hardware, too."""
    if not facts.under or not facts.facts.cpu.extensions:
        return "none"
    return "emulated" if facts.facts.cpu.signature in SOFTWARE_SIGNATURES else "hardware"


def version(link: AttachedLink) -> str:
    """EngineFacts.version: what the machine is, how it is reached, and its Docker."""
    kind = described(link.about) if link.about else "not looked at yet"
    return ", ".join([kind, "here" if link.here else "by SSH", *([str(link.docker)] if link.docker else [])])

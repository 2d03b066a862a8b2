"""What a machine is, in words: real hardware, or a virtual machine and of what."""

from __future__ import annotations

from typing import Literal

from lab.engines.attached.link import AttachedLink, MachineFacts
from lab.host.cpuid import SOFTWARE_SIGNATURES
from lab.host.facts import HostFacts
from lab.model.domain import BARE_METAL
from lab.probes.kvm import SMCCC_SIGNATURE

_SOFTWARE = "QEMU's emulation"
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
    "TCGTCGTCGTCG": _SOFTWARE,
    SMCCC_SIGNATURE: "KVM",
}
_BY_WORD = {
    "kvm": "KVM",
    "amazon": "KVM",
    "google": "KVM",
    "qemu": _SOFTWARE,
    "microsoft": "Hyper-V",
    "vmware": "VMware",
    "oracle": "VirtualBox",
    "parallels": "Parallels",
    "apple": "Apple",
    "xen": "Xen",
    "bhyve": "bhyve",
}
"""systemd-detect-virt's words."""


def under(signature: str | None, word: str, host: HostFacts) -> str:
    """What the machine is a VM of; empty on real hardware, `?` where nothing tells.

    `signature` is CPUID's, `word` systemd-detect-virt's. The signature comes first: the word is from the
    firmware's tables, too, which KVM and plain emulation share. On arm64 that is all there is, and QEMU says
    `qemu` under macOS's Hypervisor.framework as well.
    """
    if "microsoft" in host.kernel.lower() or word == "wsl":
        return "Hyper-V"
    if signature:
        return _BY_SIGNATURE.get(signature, signature.strip())
    if word == "qemu" and host.arm64 and not host.cpu.emulated:
        return "QEMU"
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
    if _is_software(facts):
        return "tcg"
    return BARE_METAL if not facts.under else "unknown" if facts.under == "?" else facts.under.lower()


def nesting(facts: MachineFacts) -> Literal["hardware", "emulated", "none"]:
    """What provides the virtualization extensions that a VM was given; none on real hardware, too."""
    if not facts.under or not facts.facts.cpu.extensions:
        return "none"
    return "emulated" if _is_software(facts) else "hardware"


def _is_software(facts: MachineFacts) -> bool:
    return facts.facts.cpu.signature in SOFTWARE_SIGNATURES or facts.under == _SOFTWARE


def version(link: AttachedLink) -> str:
    """EngineFacts.version: what the machine is, how it is reached, and its Docker."""
    kind = described(link.about) if link.about else "not looked at yet"
    return ", ".join([kind, "here" if link.here else "by SSH", *([str(link.docker)] if link.docker else [])])

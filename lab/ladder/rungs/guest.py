"""guest.paravirt, guest.cpu and guest.kvm: what L1 itself finds. This, not settings, is evidence."""

from __future__ import annotations

import re

from lab.errors import BlockedError, DeadlineError, InconclusiveError
from lab.guest import kvm as guest_kvm
from lab.ladder.model import Observation
from lab.ladder.site import Site
from lab.probes.kvm import KvmFacts, Probe

KVM_SIGNATURE = "KVMKVMKVM"
_EXTENSIONS = {"vmx": "kvm_intel", "svm": "kvm_amd"}
"""A processor's extension, and KVM's module for it."""
_REFUSED = re.compile(
    r"by bios|supported by cpu|fully enabled on cpu|doesn't support vmx|no hardware support|isn't amd"
    r"|kvm is unsupported|enabling virtualization on cpu\d+ failed|inconsistent vmcs",
    re.IGNORECASE,
)
"""What Linux writes into its log when one of these modules finds that it cannot work here (5.4 to 6.18)."""


def _facts(site: Site) -> KvmFacts:
    """One probe serves all three rungs."""
    if site.kvm is None:
        site.kvm = guest_kvm.probe(site.tools.guest, site.probe_deadline())
        site.facts["guest"] = site.kvm.model_dump(mode="json")
    return site.kvm


def settled(probe: Probe) -> Probe:
    """The probe, if it found something out. A guest that was never set up in time shows nothing."""
    for entry in (probe.real_mode, probe.long_mode):
        if entry is not None and not entry.ok and not entry.started and "killed" in entry.error:
            raise DeadlineError(f"the KVM probe: {entry.error}", hint="the VM may just be slow: try again")
    return probe


def paravirt(site: Site) -> Observation:
    """KVM's guest interface, as L1 sees it. Informative: it bears on speed, not on nesting."""
    found = _facts(site).facts
    wanted = site.tools.machine.spec.paravirt != "none"
    seen = found.cpu.hypervisor == KVM_SIGNATURE and "kvm-clock" in found.clocksources
    return Observation(
        ok=seen == wanted,
        expected="KVM's signature, and kvm-clock on offer" if wanted else "no KVM interface",
        observed=f"hypervisor signature {found.cpu.hypervisor or 'none'}, "
        f"clocksource {found.clocksource} of {', '.join(found.clocksources)}",
    )


def cpu(site: Site) -> Observation:
    """vmx or svm among L1's own cpu flags."""
    found = _facts(site).facts.cpu
    flags = [flag for flag in _EXTENSIONS if flag in found.flags]
    paging = {True: ", nested paging", False: ", no nested paging", None: ""}[found.nested_paging]
    return Observation(
        ok=bool(flags),
        expected="vmx or svm among the VM's cpu flags",
        observed=", ".join(flags) + paging if flags else "neither vmx nor svm",
        hint="" if flags else "the hypervisor did not deliver nested virtualization to the VM",
    )


def kvm(site: Site) -> Observation:
    """A tiny guest runs to its HLT under L1's KVM, entered in real mode and in long mode."""
    found = settled(_facts(site).probe)
    if found.device.exists and not found.device.opened and "denied" in found.device.error.lower():
        raise InconclusiveError(
            f"lab's user may not open /dev/kvm in the VM: {found.device.error}",
            hint="`invoke lab.up` makes it a member of group kvm",
        )
    # The device may be there without its driver: systemd makes the node beforehand.
    if not found.device.opened and (module := _never_loaded(_facts(site))):
        raise BlockedError(
            f"{found.why}: the VM's processor offers what KVM needs, and its kernel has not loaded {module}",
            hint=f"`sudo modprobe {module}` in the VM (`invoke lab.ssh`) loads it, or says why not",
        )
    return Observation(
        ok=found.ok,
        expected="a tiny guest runs to HLT, entered in real mode and in long mode",
        observed=found.why,
        hint="" if found.ok else "/dev/kvm being there is not enough; dmesg.txt has the kernel's own words",
    )


def _never_loaded(found: KvmFacts) -> str:
    """KVM's module, when the processor could serve it and it was kept out: then nobody asked the processor.

    Empty where one is loaded, where there is none for this processor, and where the kernel said
    that the processor would not do.
    """
    wanted = [module for flag, module in _EXTENSIONS.items() if flag in found.cpu_flags]
    loaded = any(module in found.facts.modules for module in _EXTENSIONS.values())
    refused = any(_REFUSED.search(line) for line in found.facts.kernel_lines or [])
    return wanted[0] if wanted and not loaded and not refused else ""

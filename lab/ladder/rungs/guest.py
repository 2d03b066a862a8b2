"""guest.paravirt, guest.cpu and guest.kvm: what L1 itself finds. This, not settings, is evidence."""

from __future__ import annotations

import re

from lab.core.errors import BlockedError, DeadlineError, InconclusiveError
from lab.engines.protocol import NESTING_REFUSED
from lab.guest import kvm as guest_kvm
from lab.ladder.rung import NO_CLAIM, Layer, Rung
from lab.ladder.rungs import vm
from lab.ladder.site import Site
from lab.model.domain import Claim, Observation
from lab.probes.kvm import MODULES, Failure, KvmFacts, Probe, own_module

KVM_SIGNATURE = "KVMKVMKVM"
_X86 = ("x86_64", "i686")
_REFUSED = re.compile(
    r"by bios|supported by cpu|fully enabled on cpu|doesn't support vmx|isn't amd"
    r"|kvm is unsupported|enabling virtualization on cpu\d+ failed|inconsistent vmcs",
    re.IGNORECASE,
)
"""What Linux writes into its log when one of these modules finds that it cannot work here (5.4 to 6.18).

Not `no hardware support`: on a processor that has the extension, only the other vendor's module says it.
"""
_OTHERS = {
    "kvm_intel": re.compile(r"amd|svm|sev\b|hygon", re.IGNORECASE),
    "kvm_amd": re.compile(r"intel|vmx|vmcs", re.IGNORECASE),
}
"""Words that make a line of the log the other vendor's, by the module that is wanted."""
_HINTS: dict[Failure, str] = {
    "absent": "the device was there before: try again",
    "permission": "`invoke lab.up` puts lab's user in the VM into group kvm; in a container look at AppArmor",
    "resource": "give the VM more memory, or end what uses it; EBUSY: another hypervisor runs in the VM",
    "killed": "the kernel's log in the VM (dmesg) says what ended it",
    "timeout": "the machine may just be slow or busy: try again",
    "tool": "it is the probe that failed, or the VM's Python, and not KVM",
}


def _facts(site: Site) -> KvmFacts:
    """One probe serves all three rungs."""
    if site.facts.guest is None:
        site.facts.guest = guest_kvm.probe(site.tools.guest, site.probe_deadline())
    return site.facts.guest


def settled(probe: Probe, where: str) -> Probe:
    """The probe, if it shows that KVM works or that KVM itself says no; `where` it ran ends a sentence.

    Raises for all else, which is no word of KVM's: BlockedError for want of a tool, DeadlineError for
    silence, InconclusiveError for an errno or a signal.
    """
    if probe.ok or probe.denied:
        return probe
    kind = probe.failure
    errors = {"tool": BlockedError, "timeout": DeadlineError}
    raise errors.get(kind, InconclusiveError)(
        f"the KVM probe {where} found nothing out: {probe.why}", hint=_HINTS.get(kind, "try again")
    )


def _paravirt(site: Site) -> Observation:
    """KVM's guest interface, as L1 sees it. Informative: it bears on speed, not on nesting."""
    facts = _facts(site).facts
    if facts.cpu.hypervisor is None:
        raise InconclusiveError(
            "the VM's hypervisor signature could not be read", hint="the VM's Python lacks ctypes, for one"
        )
    wanted = site.tools.machine.spec.paravirt != "none"
    offered = facts.cpu.hypervisor == KVM_SIGNATURE and "kvm-clock" in facts.clocksources
    return Observation(
        ok=offered == wanted,
        expected="KVM's signature, and kvm-clock on offer" if wanted else "no KVM interface",
        observed=f"hypervisor signature {facts.cpu.hypervisor or 'none'}, "
        f"clocksource {facts.clocksource} of {', '.join(facts.clocksources)}",
    )


# Nothing needs it: nesting decides, not paravirtualization. Emulation cannot pass it.
paravirt = Rung(
    "guest.paravirt",
    "L1 sees the paravirtualization interface that was asked for: KVM's signature and kvm-clock.",
    _paravirt,
    Layer.VM,
    "Paravirt",
    needs=(vm.boot,),
    required_by=NO_CLAIM,
    observed_by=frozenset({Claim.THEORY}),
    shows=("dmesg.txt",),
)


def _cpu(site: Site) -> Observation:
    """vmx or svm among L1's own cpu flags; where the engine's log says why not, its words are shown."""
    machine, processor = _facts(site).facts.machine, _facts(site).facts.cpu
    if machine not in _X86:
        raise BlockedError(f"the VM's processor is {machine}, and what is asked about are x86 guests")
    flags = [flag for flag in MODULES if flag in processor.flags]
    paging = {True: ", nested paging", False: ", no nested paging", None: ""}[processor.nested_paging]
    word = (site.facts.vm_settings or {}).get(NESTING_REFUSED, "")
    return Observation(
        ok=bool(flags),
        expected="vmx or svm among the VM's cpu flags",
        observed=(", ".join(flags) + paging if flags else "neither vmx nor svm")
        + (f"; the engine's log says: {word}" if word else ""),
        hint="" if flags else "the hypervisor did not deliver nested virtualization to the VM",
    )


cpu = Rung(
    "guest.cpu",
    "L1's processor offers virtualization extensions (vmx or svm).",
    _cpu,
    Layer.VM,
    "Processor",
    needs=(vm.boot,),
    decisive=True,
    shows=("cpuinfo.txt",),
)


def _kvm(site: Site) -> Observation:
    """A tiny guest runs to its HLT under L1's KVM, entered in real mode and in long mode."""
    probed = _facts(site)
    if probed.probe.device.absent:
        return _without_device(probed)
    probe = settled(probed.probe, "in the VM")
    return _observed(probe.ok, probe.why)


def _observed(ok: bool, why: str) -> Observation:
    return Observation(
        ok=ok,
        expected="a tiny guest runs to HLT, entered in real mode and in long mode",
        observed=why,
        hint="" if ok else "/dev/kvm being there is not enough; dmesg.txt has the kernel's own words",
    )


def _without_device(probed: KvmFacts) -> Observation:
    """The observation where there is no device, or one with no driver (systemd makes the node beforehand).

    It counts against the rung where the processor offers nothing to KVM, and where the kernel's log says that
    the module of the processor's own vendor refused it. Raises BlockedError where that module is not loaded,
    and InconclusiveError where it is and the log says nothing.
    """
    why = probed.probe.why
    module = own_module(probed.cpu_flags)
    if not module:
        return _observed(False, why)
    lines = [line for line in probed.facts.kernel_lines or [] if _REFUSED.search(line)]
    own = [line for line in lines if not _OTHERS[module].search(line)]
    if own:
        return _observed(False, f"{why}; the kernel says: {own[-1]}")
    if module in probed.facts.modules:
        raise InconclusiveError(
            f"{why}: {module} is loaded, and the kernel does not say why there is no device",
            hint="dmesg.txt has the kernel's words; unloading and loading it may bring the device",
        )
    raise BlockedError(
        f"{why}: the VM's processor offers what KVM needs, and its kernel has not loaded {module}",
        hint=f"`sudo modprobe {module}` in the VM (`invoke lab.ssh`) loads it, or says why not",
    )


kvm = Rung(
    "guest.kvm",
    "A tiny guest runs to its HLT under L1's /dev/kvm, entered in real mode and in long mode.",
    _kvm,
    Layer.VM,
    "/dev/kvm",
    needs=(cpu,),
    decisive=True,
    shows=("kvm-parameters.txt", "dmesg.txt"),
)

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
from lab.probes.kvm import MODULES, SMCCC_SIGNATURE, CpuFacts, Failure, KvmFacts, Probe, own_module

KVM_SIGNATURE = "KVMKVMKVM"
_X86, _ARM64 = ("x86_64", "i686"), "aarch64"
_ARM_MODE = re.compile(r"kvm \[\d+\]: (.*mode initialized.*)")
_ARM_REFUSED = re.compile(r"kvm \[\d+\]: (hyp mode not available.*)", re.IGNORECASE)
_ARM_OFF = re.compile(r"kvm \[\d+\]: (kvm disabled from command line.*)", re.IGNORECASE)
"""What Linux writes into its log of KVM on arm64 (arch/arm64/kvm/arm.c, kvm_arm_init; 5.4 to 6.18)."""
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
_LOG = (
    "`sudo dmesg` in the VM (`invoke lab.ssh`) has the kernel's words, if it was not long ago that it booted"
)
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
    if facts.machine == _ARM64:
        return _paravirt_arm64(facts)
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


def _paravirt_arm64(facts: CpuFacts) -> Observation:
    """The same on arm64, where KVM offers no clock of its own: a guest reads the processor's."""
    if facts.kernel_lines is None:
        raise InconclusiveError("the kernel's log in the VM may not be read", hint=_LOG)
    offered = facts.cpu.hypervisor == SMCCC_SIGNATURE
    return Observation(
        ok=offered,
        expected="KVM's services by SMCCC (ARM has no kvm-clock)",
        observed=("" if offered else "no ") + f"KVM services by SMCCC, clocksource {facts.clocksource}",
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
    if machine == _ARM64:
        return _cpu_arm64(_facts(site).facts)
    if machine not in _X86:
        raise BlockedError(f"lab knows no KVM on a {machine}, which the VM's processor is")
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


def _cpu_arm64(facts: CpuFacts) -> Observation:
    """Whether L1's kernel was started in EL2: in EL1 it cannot have guests. No register tells user space."""
    if facts.cpu.el2 is None:
        raise InconclusiveError(
            "nothing tells whether the VM's kernel was started in EL2: it has no KVM, and its log "
            + ("may not be read" if facts.kernel_lines is None else "no longer has it"),
            hint=_LOG,
        )
    mode = _line_of(_ARM_MODE, facts)
    return Observation(
        ok=facts.cpu.el2,
        expected="the VM's kernel was started in EL2, where KVM works on arm64",
        observed=("EL2" if facts.cpu.el2 else "the kernel was started in EL1: there is no EL2 for it")
        + (f"; the kernel says: {mode}" if mode else ""),
        hint="" if facts.cpu.el2 else "the hypervisor did not deliver nested virtualization to the VM",
    )


def _line_of(pattern: re.Pattern[str], facts: CpuFacts) -> str:
    """KVM's own words in the last line of the kernel's log that has such; empty where none has."""
    matches = [match[1] for line in facts.kernel_lines or [] if (match := pattern.search(line))]
    return matches[-1] if matches else ""


cpu = Rung(
    "guest.cpu",
    "L1's processor offers virtualization extensions: vmx or svm, or EL2 on arm64.",
    _cpu,
    Layer.VM,
    "Processor",
    needs=(vm.boot,),
    decisive=True,
    shows=("cpuinfo.txt",),
)


def _kvm(site: Site) -> Observation:
    """A tiny guest runs to its halt under L1's KVM, in every mode that a guest there starts in."""
    probed = _facts(site)
    if probed.probe.device.absent:
        return _without_device(probed)
    probe = settled(probed.probe, "in the VM")
    return _observed(probe.ok, probe.why, probed)


def _observed(ok: bool, why: str, probed: KvmFacts) -> Observation:
    arm64 = probed.facts.machine == _ARM64
    modes = "in EL1" if arm64 else "in real mode and in long mode"
    return Observation(
        ok=ok,
        expected=f"a tiny guest runs to its {'end' if arm64 else 'HLT'}, entered {modes}",
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
    if probed.facts.machine == _ARM64:
        return _without_device_arm64(probed)
    module = own_module(probed.cpu_flags)
    if not module:
        return _observed(False, why, probed)
    lines = [line for line in probed.facts.kernel_lines or [] if _REFUSED.search(line)]
    own = [line for line in lines if not _OTHERS[module].search(line)]
    if own:
        return _observed(False, f"{why}; the kernel says: {own[-1]}", probed)
    if module in probed.facts.modules:
        raise InconclusiveError(
            f"{why}: {module} is loaded, and the kernel does not say why there is no device",
            hint="dmesg.txt has the kernel's words; unloading and loading it may bring the device",
        )
    raise BlockedError(
        f"{why}: the VM's processor offers what KVM needs, and its kernel has not loaded {module}",
        hint=f"`sudo modprobe {module}` in the VM (`invoke lab.ssh`) loads it, or says why not",
    )


def _without_device_arm64(probed: KvmFacts) -> Observation:
    """The same on arm64, where KVM is no module, and is there or not from the boot on."""
    why = probed.probe.why
    if words := _line_of(_ARM_REFUSED, probed.facts):
        return _observed(False, f"{why}; the kernel says: {words}", probed)
    if words := _line_of(_ARM_OFF, probed.facts):
        raise BlockedError(f"{why}: {words}", hint="the kernel's parameter kvm-arm.mode=none is in the way")
    if "kvm" not in probed.facts.modules:
        raise BlockedError(
            f"{why}: the VM's kernel was built without KVM", hint="Debian's and Ubuntu's have it"
        )
    raise InconclusiveError(f"{why}, and the kernel does not say why there is no device", hint=_LOG)


kvm = Rung(
    "guest.kvm",
    "A tiny guest runs to its HLT under L1's /dev/kvm, entered in real mode and in long mode (arm64: EL1).",
    _kvm,
    Layer.VM,
    "/dev/kvm",
    needs=(cpu,),
    decisive=True,
    shows=("kvm-parameters.txt", "dmesg.txt"),
)

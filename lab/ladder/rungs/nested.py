"""nested.boot and nested.adb: L2 itself."""

from __future__ import annotations

from lab.core.deadline import Deadline
from lab.core.errors import InconclusiveError
from lab.emulators.protocol import Emulator, NestedFailedError, NestedLostError, NestedProof
from lab.ladder.facts import L2Adb, L2Boot, Launches
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import container
from lab.ladder.rungs.guest import KVM_SIGNATURE
from lab.ladder.site import Site, no_emulator
from lab.model.domain import Observation
from lab.probes.kvm import SMCCC_SIGNATURE

_CLOCKS = {KVM_SIGNATURE: "kvm-clock", SMCCC_SIGNATURE: "arch_sys_counter"}
"""By what Linux keeps time under KVM: on arm64 it is the processor's own counter."""


def _boot(site: Site) -> Observation:
    """L2 boots in the container, and says from inside that KVM runs it."""
    emulator = _emulator(site)
    clock = f", {_CLOCKS[_signature(site)]}" if emulator.own_clock else ""
    expected = f"L2 runs under KVM: signature {_signature(site)}{clock}, a kernel of its own"
    try:
        proof = emulator.booted(site.tools.guest, Deadline.after(site.l2_wait()))
    except NestedFailedError as failure:
        return Observation(
            ok=False,
            expected=expected,
            observed=f"{failure.what}\n{failure.tail}".strip() + _failed_before(site),
            hint=failure.hint,
        )
    except NestedLostError as lost:
        raise NestedLostError(lost.what + _failed_before(site), hint=lost.hint, tail=lost.tail) from lost
    before = _failed_before(site)
    if why := _why_not_ours(site, proof):
        # Another launch's word, or L1's own kernel: it says nothing of the L2 that is asked about.
        raise InconclusiveError(
            f"what the container reports is not from the L2 this lab launched: {why}{before}",
            hint="`invoke lab.up` launches L2 anew",
        )
    faults = _faults(site, proof)
    if not faults:
        _require_clock(site, proof, emulator, before)
        site.booted = proof
        if proof.seconds is not None:
            site.facts.nested_boot = L2Boot(seconds=proof.seconds, acceleration="kvm")
    took = f", {proof.seconds:.1f} s from launch" if proof.seconds is not None else ""
    return Observation(
        ok=not faults,
        expected=expected,
        observed=("; ".join(faults) or _described(proof) + took) + before,
        hint="" if not faults else "`invoke lab.logs --source container` shows the container's own log",
    )


boot = Rung(
    "nested.boot",
    "A guest (L2) boots in the container, and says from inside that KVM runs it.",
    _boot,
    Layer.NESTED,
    "Boot",
    needs=(container.kvm,),
    decisive=True,
    shows=("container.log", "l2-console.log"),
    why_not=no_emulator,
)


def _adb(site: Site) -> Observation:
    """L2 answers over ADB on the host's loopback, and it is this L2 and no other that answers."""
    emulator, deadline = _emulator(site), Deadline.after(site.adb_seconds)
    proof = emulator.prove(site.tools.adb_address, site.adb_folder, deadline)
    while (why := _why_not_ours(site, proof)) and _restarted(site, emulator, deadline):
        proof = emulator.prove(site.tools.adb_address, site.adb_folder, deadline)
    if why:
        # It fails the rung, but says nothing of this lab's L2: no evidence against nesting.
        raise InconclusiveError(
            f"what answers ADB at {site.tools.adb_address} is not this lab's L2: {why}",
            hint="something else may listen there: `invoke lab.status` shows the ports",
        )
    faults = _faults(site, proof)
    if not faults:
        _require_clock(site, proof, emulator)
    # Where L2 is not lab's own, the end of its boot is another rung's: android.boot.
    if not faults and emulator.own_clock and not proof.boot_completed:
        raise InconclusiveError(
            f"this lab's L2 answers at {site.tools.adb_address}, and says that its boot is not over: "
            "sys.boot_completed is not 1",
            hint="`invoke emulator.restart` launches it anew",
        )
    site.facts.nested_adb = L2Adb(address=site.tools.adb_address, boot_id=proof.boot_id)
    return Observation(
        ok=not faults,
        expected=f"ADB at {site.tools.adb_address} gives the nonce back from an L2 under KVM"
        + (", boot completed" if emulator.own_clock else ""),
        observed="; ".join(faults) or f"{site.tools.adb_address}: nonce returned, {_described(proof)}",
        hint="" if not faults else "`invoke lab.logs --source l2` shows L2's console",
    )


adb = Rung(
    "nested.adb",
    "L2 answers over ADB on the host's loopback with the nonce it was given and KVM's signature.",
    _adb,
    Layer.NESTED,
    "ADB",
    needs=(boot,),
    decisive=True,
    shows=("l2-console.log",),
    why_not=no_emulator,
)


def _why_not_ours(site: Site, proof: NestedProof) -> str:
    """Why this answer is not from the L2 this lab launched; empty when it is."""
    if not site.tools.nonce or proof.nonce != site.tools.nonce:
        return "the nonce is missing" if not proof.nonce else "the nonce is not the one given at launch"
    if not proof.boot_id or proof.boot_id == site.boot_id:
        # A container shares L1's kernel: an adbd in one shows L1's own boot id.
        return "it shows no kernel of its own"
    if site.booted and proof.boot_id != site.booted.boot_id:
        return f"another kernel answers than the one that booted in the container ({proof.boot_id})"
    return ""


def _restarted(site: Site, emulator: Emulator, deadline: Deadline) -> bool:
    """Whether another kernel boots in the container than did; that one is this lab's L2 then.

    An Android may restart by itself, and forgets its nonce: `booted` gives it anew. Why it restarted is
    what android.boot looks at.
    """
    before = site.booted
    if not emulator.android or before is None or deadline.passed:
        return False
    now = emulator.booted(site.tools.guest, deadline)
    site.booted = None
    restarted = now.boot_id != before.boot_id and not _why_not_ours(site, now) and not _faults(site, now)
    site.booted = now if restarted else before
    return restarted


def _signature(site: Site) -> str:
    """What an L2 under KVM says that runs it: CPUID's signature, or on arm64 what its kernel asked KVM."""
    return SMCCC_SIGNATURE if site.kvm and site.kvm.facts.machine == "aarch64" else KVM_SIGNATURE


def _faults(site: Site, proof: NestedProof) -> list[str]:
    """What about this L2's answer speaks against KVM running it: the signature, and nothing else.

    Raises InconclusiveError for an answer that lacks it.
    """
    if proof.hypervisor is None:
        raise InconclusiveError(
            "L2 answers, and does not tell its hypervisor's signature", hint="the answer was cut: try again"
        )
    if proof.hypervisor == _signature(site):
        return []
    return [f"the hypervisor signature is {proof.hypervisor or 'none'}"]


def _require_clock(site: Site, proof: NestedProof, emulator: Emulator, before: str = "") -> None:
    """Raise InconclusiveError for an L2 under KVM that keeps time by another clock: neither for nor against.

    A kernel that is not lab's may prefer the TSC, and not let ADB's user see what it took.
    """
    clock = _CLOCKS[_signature(site)]
    allowed = (clock,) if emulator.own_clock else (clock, "tsc", "")
    if proof.clocksource not in allowed:
        raise InconclusiveError(
            f"KVM runs L2 by its signature, and L2's clocksource is {proof.clocksource or 'unknown'}, "
            f"not {clock}{before}",
            hint="`invoke lab.logs --source l2` shows L2's console",
        )


def _failed_before(site: Site) -> str:
    """How many launches failed before this one, and the last one's end; empty where none did."""
    failed = site.tools.failed_launches
    site.facts.nested_launches = Launches(failed=failed)
    return f"; {len(failed)} launches failed: {failed[-1]}" if failed else ""


def _described(proof: NestedProof) -> str:
    return f"signature {proof.hypervisor}, {proof.clocksource or 'clock unknown'}, Linux {proof.kernel}"


def _emulator(site: Site) -> Emulator:
    if site.emulator is None:
        raise ValueError("these rungs are skipped when there is no emulator")
    return site.emulator

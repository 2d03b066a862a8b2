"""Does KVM work in L1? A tiny guest is really run there, entered in real and in long mode."""

from __future__ import annotations

from lab.core.deadline import Deadline
from lab.guest import python
from lab.guest.ssh import Guest
from lab.probes.kvm import SECONDS_PER_MODE, CpuFacts, KvmFacts, Probe, parsed


def facts(guest: Guest, deadline: Deadline | None = None) -> CpuFacts:
    """CPU, hypervisor, clock and KVM modules of L1 (read as root, for the kernel's log)."""
    done = python.run(guest, "cpu_facts.py", sudo=True, deadline=deadline)
    return parsed(CpuFacts, done.out, done.err)


def probe(guest: Guest, deadline: Deadline | None = None) -> KvmFacts:
    """Run the functional probe in L1 as the user lab logs in as, who must be in group kvm.

    As root where the terms say that only root may use the device.
    Raises BlockedError when there is no Python to run it under, CommandError when it was ended, LabError
    when the answer is not what the script prints. A KVM that fails or hangs is an answer, not an error.
    """
    done = python.run(
        guest,
        "kvm_probe.py",
        "--seconds",
        str(SECONDS_PER_MODE),
        sudo="always" if guest.terms.kvm_by_sudo else False,
        deadline=deadline,
    )
    return KvmFacts(probe=parsed(Probe, done.out, done.err), facts=facts(guest, deadline))

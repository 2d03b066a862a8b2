"""Does KVM work in L1? A tiny guest is really run there, entered in real and in long mode."""

from __future__ import annotations

from lab.deadline import Deadline
from lab.guest.ssh import Guest
from lab.probes.kvm import SECONDS_PER_MODE, CpuFacts, KvmFacts, Probe, parsed, script


def facts(guest: Guest, deadline: Deadline | None = None) -> CpuFacts:
    """CPU, hypervisor, clock and KVM modules of L1 (read as root, for the kernel's log)."""
    done = guest.run(["python3", "-"], sudo=True, stdin=script("cpu_facts.py"), deadline=deadline)
    return parsed(CpuFacts, done.out, done.err)


def probe(guest: Guest, deadline: Deadline | None = None) -> KvmFacts:
    """Run the functional probe in L1 as the user lab logs in as, who must be in group kvm.

    Raises CommandError when Python does not run there, LabError when the answer is not
    what the script prints. A KVM that fails or hangs is an answer, not an error.
    """
    argv = ["python3", "-", "--seconds", str(SECONDS_PER_MODE)]
    done = guest.run(argv, stdin=script("kvm_probe.py"), deadline=deadline)
    return KvmFacts(probe=parsed(Probe, done.out, done.err), facts=facts(guest, deadline))

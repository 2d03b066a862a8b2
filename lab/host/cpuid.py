"""CPUID's hypervisor signature on this host, and what those that are known stand for."""

from __future__ import annotations

import functools
import sys

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import InterruptedByUser, LabError
from lab.probes.kvm import SMCCC_SIGNATURE, CpuFacts, parsed, script

_SECONDS = 20

SOFTWARE_SIGNATURES = ("TCGTCGTCGTCG",)
"""Signatures of hypervisors whose processors are software: QEMU's plain emulation."""
HARDWARE_SIGNATURES = (
    "KVMKVMKVM",
    SMCCC_SIGNATURE,
    "VMwareVMware",
    "Microsoft Hv",
    "XenVMMXenVMM",
    "VBoxVBoxVBox",
    "bhyve bhyve",
    "prl hyperv",
    " lrpepyh vr",
    "ACRNACRNACRN",
    "___ NVMM ___",
    "OpenBSDVMM58",
)
"""Signatures of those that run guests on the processor itself (Linux: arch/x86/kernel/cpu, virt-what)."""


@functools.cache
def signature() -> str | None:
    """CPUID's hypervisor signature on this host; empty on bare hardware, None where it cannot be read.

    Read once, in a process of its own, as the VM's is.
    """
    try:
        argv = [sys.executable, "-I", "-"]
        done = proc.run(argv, stdin=script("cpu_facts.py"), deadline=Deadline.after(_SECONDS))
        return parsed(CpuFacts, done.out, done.err).cpu.hypervisor
    except InterruptedByUser:
        raise
    except (LabError, OSError):
        return None

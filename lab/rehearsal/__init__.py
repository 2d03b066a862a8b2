"""An emulated PC: a whole x86 machine in software, with the processor of one's choice.

It needs no virtualization of the host, and brings Intel's VT-x or AMD-V all the same (docs/rehearsal.md).
"""

from lab.rehearsal.bochs import BochsPc
from lab.rehearsal.pc import EmulatedPc, PcFacts, PcSpec, powered
from lab.rehearsal.qemu import QemuPc

__all__ = ["BochsPc", "EmulatedPc", "PcFacts", "PcSpec", "QemuPc", "powered"]

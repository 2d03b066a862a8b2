"""Which kind of emulated PC has a processor."""

from __future__ import annotations

from lab.rehearsal import bochs as bochs_kind
from lab.rehearsal import models, qemu
from lab.rehearsal.bochs import BochsPc
from lab.rehearsal.pc import EmulatedPc, PcSpec
from lab.rehearsal.qemu import QemuPc


def pc(spec: PcSpec, bochs: str = bochs_kind.PROGRAM) -> EmulatedPc:
    """The PC of this specification; `bochs` is the program Bochs, should it be one. Raises UsageError."""
    models.processor(spec.cpu)
    return QemuPc(spec, program=qemu.PROGRAM) if spec.cpu in models.QEMU else BochsPc(spec, program=bochs)

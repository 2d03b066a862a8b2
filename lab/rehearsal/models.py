"""Processors by their short names, as the emulators know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lab.core.errors import UsageError


@dataclass(frozen=True)
class Processor:
    """A processor that an emulator offers."""

    model: str
    """In the emulator's own word."""
    extension: Literal["VT-x", "AMD-V", ""]
    """What it runs VMs by: Intel's, AMD's, or nothing."""


BOCHS: Mapping[str, Processor] = {
    "penryn": Processor("core2_penryn_t9600", "VT-x"),
    "westmere": Processor("corei5_arrandale_m520", "VT-x"),
    "sandy-bridge": Processor("corei7_sandy_bridge_2600k", "VT-x"),
    "ivy-bridge": Processor("corei7_ivy_bridge_3770k", "VT-x"),
    "haswell": Processor("corei7_haswell_4770", "VT-x"),
    "broadwell": Processor("broadwell_ult", "VT-x"),
    "skylake": Processor("corei7_skylake_x", "VT-x"),
    "prescott": Processor("p4_prescott_celeron_336", ""),
    "bulldozer": Processor("zambezi", "AMD-V"),
    "zen": Processor("ryzen", "AMD-V"),
}
"""Bochs' models (`bochs --help cpu`): Intel's with VT-x, oldest first; Intel's without; AMD's.

Penryn's VT-x has neither EPT nor unrestricted guest; all from Westmere on have both. docs/rehearsal.md has
what was seen of each, and by which Bochs.
"""

QEMU: Mapping[str, Processor] = {"amd": Processor("max", "AMD-V")}
"""QEMU's models, of its emulation in software, which has AMD's extension alone."""

PROCESSORS: Mapping[str, Processor] = {**BOCHS, **QEMU}


def processor(name: str, among: Mapping[str, Processor] = PROCESSORS) -> Processor:
    """A processor by its short name. Raises UsageError, which lists them."""
    if name not in among:
        raise UsageError(f"there is no emulated processor {name!r}", hint=f"one of {', '.join(among)}")
    return among[name]

"""Processors by their short names, as the emulators know them."""

from __future__ import annotations

from collections.abc import Mapping

from lab.errors import UsageError

BOCHS: Mapping[str, str] = {
    "penryn": "core2_penryn_t9600",
    "westmere": "corei5_arrandale_m520",
    "sandy-bridge": "corei7_sandy_bridge_2600k",
    "ivy-bridge": "corei7_ivy_bridge_3770k",
    "haswell": "corei7_haswell_4770",
    "broadwell": "broadwell_ult",
    "skylake": "corei7_skylake_x",
    "prescott": "p4_prescott_celeron_336",
    "bulldozer": "zambezi",
    "zen": "ryzen",
}
"""Bochs' models (`bochs --help cpu`): Intel's with VT-x, oldest first; Intel's without; AMD's with AMD-V.

Penryn's VT-x has neither EPT nor unrestricted guest; all from Westmere on have both. docs/rehearsal.md has
what was seen of each, and by which Bochs.
"""


def bochs_model(name: str) -> str:
    """Bochs' word for a processor. Raises UsageError."""
    if name not in BOCHS:
        raise UsageError(f"there is no emulated processor {name!r}", hint=f"one of {', '.join(BOCHS)}")
    return BOCHS[name]

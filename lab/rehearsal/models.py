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
}
"""Bochs' models of Intel's processors (`bochs --help cpu`), oldest first; prescott is the one without VT-x.

Penryn's VT-x has neither EPT nor unrestricted guest; all from Westmere on have both. docs/rehearsal.md has
what was seen of each.
"""


def bochs_model(name: str) -> str:
    """Bochs' word for a processor. Raises UsageError."""
    if name not in BOCHS:
        raise UsageError(f"there is no emulated processor {name!r}", hint=f"one of {', '.join(BOCHS)}")
    return BOCHS[name]

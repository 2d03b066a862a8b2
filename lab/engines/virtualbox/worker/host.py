"""What VirtualBox says of itself and of this host."""

from __future__ import annotations

import platform
from typing import Any

from lab.engines.virtualbox.worker.api import Api

_FEATURES = ("HWVirtEx", "NestedHWVirt", "NestedPaging", "UnrestrictedGuest", "LongMode")


def describe(api: Api) -> dict[str, Any]:
    """Versions, the glue in use, and the processor features as VirtualBox reports them.

    The features are its word, no proof: without the kernel driver it reports none.
    """
    features = {}
    for name in _FEATURES:
        number = api.value("ProcessorFeature", name)
        features[name] = bool(api.vbox.host._i.getProcessorFeature(number))
    return {
        "version": str(api.vbox.version_normalized),
        "build": str(api.vbox.version),
        "api": f"{api.version[0]}.{api.version[1]}",
        "glue": api.glue,
        "python": platform.python_version(),
        "features": features,
    }

"""What the VirtualBox engine says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lab.engines.kind import EngineKind, Trace
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.engines.virtualbox import basedisk
from lab.engines.virtualbox.layout import VirtualBoxLayout

_MACHINE = re.compile(r'<Machine\b[^>]*\buuid="\{([0-9A-Fa-f-]{36})\}"')
_LONGEST_BYTES = 1 << 20
"""A settings file says whose it is in its first lines."""


def _make(options: Options) -> Engine:
    from lab.engines.virtualbox.engine import VirtualBoxEngine

    return VirtualBoxEngine(options.cache_dir, options.virtualbox)


def _traces(folder: Path) -> Iterator[Trace]:
    layout = VirtualBoxLayout(folder)
    for path in (layout.settings, layout.settings_before):
        if path.exists():
            with path.open("rb") as stream:
                known = _MACHINE.search(stream.read(_LONGEST_BYTES).decode(errors="replace"))
            yield Trace(KIND.name, known[1].lower() if known else "", str(path))
    for path in (layout.disk, layout.log):
        if path.exists():
            yield Trace(KIND.name, "", str(path))


KIND = EngineKind(
    "virtualbox",
    _make,
    preference=1,
    disk_format="vmdk",
    journal="vm",
    traces=_traces,
    prune=basedisk.prune,
)

"""What the QEMU engine says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lab.core import files
from lab.engines.kind import EngineKind, Trace
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.engines.qemu import process
from lab.engines.qemu.layout import QemuLayout


def _make(options: Options) -> Engine:
    from lab.engines.qemu.engine import QemuEngine
    from lab.engines.qemu.host import HostQemu
    from lab.host.kvm import functional_probe

    qemu = options.qemu
    probe = partial(functional_probe, options.cache_dir, kernel=qemu.kernel, qemu=qemu.binary)
    return QemuEngine(HostQemu(probe, qemu.acceleration, qemu.binary))


def _traces(folder: Path) -> Iterator[Trace]:
    layout = QemuLayout(folder, "")
    if layout.process.exists():
        try:
            uuid = str(files.read_object(layout.process).get("uuid", ""))
        except ValueError:
            uuid = ""  # torn by a crash: the process itself has it too
        yield Trace(KIND.name, uuid, str(layout.process))
    for uuid, running in process.keepers(layout.pid):
        yield Trace(KIND.name, uuid, f"process {running.pid}")
    for path in (layout.disk, layout.disk_part, layout.pid, layout.log):
        if path.exists():
            yield Trace(KIND.name, "", str(path))


KIND = EngineKind(
    "qemu",
    _make,
    purposes=frozenset({"qemu", "ssh", "adb"}),
    preference=2,
    boots_kernel=True,
    journal="process",
    traces=_traces,
)

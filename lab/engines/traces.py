"""What an engine's own folder of a lab says of the machine that was made in it.

For a lab whose record and journal are lost: its VM may run all the same, and must be ended by its own UUID.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core import files, system
from lab.engines import vagrant
from lab.engines.qemu import process
from lab.engines.qemu.layout import QemuLayout
from lab.engines.vagrant import link
from lab.engines.virtualbox.layout import VirtualBoxLayout

_MACHINE = re.compile(r'<Machine\b[^>]*\buuid="\{([0-9A-Fa-f-]{36})\}"')
_LONGEST_BYTES = 1 << 20
"""A settings file says whose it is in its first lines."""


@dataclass(frozen=True)
class Trace:
    """One sign of a machine: its engine, its UUID if the sign has it, and the file or process it is."""

    engine: str
    uuid: str
    sign: str


def traces(folder: Path) -> list[Trace]:
    """Every sign of a machine in an engine's folder of a lab; empty when the folder is or is not there.

    Raises LabError for files that may not be read, or that are damaged and are all there is to go by.
    """
    with system.explained(folder):
        return [*_of_qemu(folder), *_of_virtualbox(folder), *_of_vagrant(folder)]


def is_empty(folder: Path) -> bool:
    """Whether nothing is in the folder, or there is none. Raises LabError."""
    with system.explained(folder):
        return not folder.is_dir() or not any(folder.iterdir())


def _of_qemu(folder: Path) -> Iterator[Trace]:
    layout = QemuLayout(folder, "")
    if layout.process.exists():
        try:
            uuid = str(files.read_object(layout.process).get("uuid", ""))
        except ValueError:
            uuid = ""  # torn by a crash: the process itself has it too
        yield Trace("qemu", uuid, str(layout.process))
    for uuid, running in process.keepers(layout.pid):
        yield Trace("qemu", uuid, f"process {running.pid}")
    for path in (layout.disk, layout.disk_part, layout.pid, layout.log):
        if path.exists():
            yield Trace("qemu", "", str(path))


def _of_virtualbox(folder: Path) -> Iterator[Trace]:
    layout = VirtualBoxLayout(folder)
    for path in (layout.settings, layout.settings_before):
        if path.exists():
            with path.open("rb") as stream:
                known = _MACHINE.search(stream.read(_LONGEST_BYTES).decode(errors="replace"))
            yield Trace("virtualbox", known[1].lower() if known else "", str(path))
    for path in (layout.disk, layout.log):
        if path.exists():
            yield Trace("virtualbox", "", str(path))


def _of_vagrant(folder: Path) -> Iterator[Trace]:
    """Vagrant itself knows the machine by its Vagrantfile, so no UUID is needed."""
    if known := link.read(folder):
        yield Trace(vagrant.engine_of(known.provider), "", str(folder / link.FILE))

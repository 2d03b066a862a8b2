"""What is checked before something is created or started: better one clear error than half a lab."""

from __future__ import annotations

from lab import files
from lab.commands import ports
from lab.commands.session import Session
from lab.errors import BlockedError
from lab.host import facts
from lab.store import Lab, Record

_MIB = 2**20
_DISK_BYTES = 4 << 30
"""What a lab writes to its disk on the way up, with room for a suspend."""


def before_anything(session: Session) -> None:
    """The ports a new lab must have are free. Raises BlockedError."""
    for name, port in session.settings.ports.model_dump().items():
        if port:
            ports.must_be_free(name, port)


def before_start(lab: Lab, record: Record) -> None:
    """Memory and disk for the VM are there. Raises BlockedError."""
    available = facts.read().memory_available
    if available < record.memory_mib * _MIB:
        raise BlockedError(
            f"the VM takes {record.memory_mib} MiB of memory, and {available // _MIB} MiB is available",
            hint="close something, or make a smaller lab: set vm.memory_mib lower and use --fresh",
        )
    files.require_space(lab.folder, _DISK_BYTES, f"the disk of lab {lab.name}")

"""What is checked before something is created or started: better one clear error than half a lab."""

from __future__ import annotations

from collections.abc import Container

from lab import engines, files
from lab.commands import choose, consent, ports
from lab.commands.session import Session
from lab.commands.workbench import Workbench
from lab.engines.protocol import State
from lab.errors import BlockedError, InterruptedByUser, LabError
from lab.host import facts, packages
from lab.store import Lab, Record

_MIB = 2**20
_DISK_BYTES = 4 << 30
"""What a lab writes to its disk on the way up, with room for a suspend."""


def before_anything(session: Session, held: Container[int] = ()) -> None:
    """The ports a new lab must have are free, or among `held`. Raises BlockedError."""
    for name, port in session.settings.ports.model_dump().items():
        if port and port not in held:
            ports.must_be_free(name, port)


def before_replacing(session: Session, plan: Record, old: Lab) -> None:
    """All that a new lab needs is there once `old` is gone, of whose record nothing need be readable.

    Raises BlockedError: then the old one is better than none.
    """
    session.need(packages.ENGINE_PURPOSES[plan.engine])
    engine = engines.engine(plan.engine, session.engine_options())
    usable = engine.availability()
    if not usable.usable:
        raise BlockedError(f"{plan.engine} cannot be used: {usable.why}", hint=usable.hint)
    if plan.nested:
        consent.require(session, engine)
    choose.image_kind(session, plan.engine)
    known, running = None, False
    try:
        known = old.read()
        running = Workbench(session, old).machine_state() in (State.RUNNING, State.PAUSED)
    except InterruptedByUser:
        raise
    except LabError:
        pass  # it is to go in any case
    before_anything(session, [access.host_port for access in known.forwards.values()] if known else [])
    _must_have_memory(plan, known.memory_mib if known and running else 0)


def before_start(lab: Lab, record: Record) -> None:
    """Memory and disk for the VM are there. Raises BlockedError."""
    _must_have_memory(record)
    files.require_space(lab.folder, _DISK_BYTES, f"the disk of lab {lab.name}")


def _must_have_memory(record: Record, freed_mib: int = 0) -> None:
    """`freed_mib` is what another VM gives back first. Raises BlockedError."""
    available = facts.read().memory_available + freed_mib * _MIB
    if available < record.memory_mib * _MIB:
        raise BlockedError(
            f"the VM takes {record.memory_mib} MiB of memory, and {available // _MIB} MiB is available",
            hint="close something, or make a smaller lab: set vm.memory_mib lower and use --fresh",
        )

"""What is checked before something is created or started: better one clear error than half a lab."""

from __future__ import annotations

from collections.abc import Container

from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.engines.protocol import HELD, State
from lab.images import canary
from lab.records.labs import Lab
from lab.records.record import Record
from lab.workflow import consent, guest_image, mirror, ports
from lab.workflow.selection import CANARY
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench

_MIB = 2**20
MAC_KEEPS_BYTES = 2 << 30
"""What macOS keeps for itself. What it says is available leaves out all that it would give back (caches,
what it can compress; giampaolo/psutil#1277), so a Mac is judged by its whole memory."""
_DISK_BYTES = 4 << 30
"""What a lab writes to its disk on the way up, with room for a suspend."""


def before_anything(session: Session, held: Container[int] = ()) -> None:
    """The ports a new lab must have are free, or among `held`. Raises BlockedError."""
    for name, port in session.settings.ports.model_dump().items():
        if port and port not in held:
            ports.must_be_free(name, port)


def before_building(session: Session, emulator: str) -> None:
    """If somebody is at the terminal, ask now for the Debian mirror of a canary, not halfway through.

    If nobody can be asked, the canary's own rung is blocked later. Raises as mirror.debian does.
    """
    if emulator == CANARY and session.interactive and canary.find(session.images) is None:
        mirror.debian(session)


def before_replacing(session: Session, plan: Record, old: Lab) -> None:
    """Check that a new lab can be made once `old` is gone. `old`'s record may be unreadable.

    Raises BlockedError. On BlockedError `old` is kept.
    """
    session.need(guest_image.purposes(session, plan.engine))
    engine = session.engine(plan.engine)
    usable = engine.availability()
    if not usable.usable:
        raise BlockedError(f"{plan.engine} cannot be used: {usable.why}", hint=usable.hint)
    if plan.nested:
        consent.require(session, engine)
    guest_image.image_kind(session, plan.engine)
    known, running = None, False
    try:
        known = old.read()
        running = Workbench(session, old).machine_state() in {State.RUNNING, *HELD}
    except InterruptedByUser:
        raise
    except LabError:
        pass  # it is to go in any case
    before_anything(session, [access.host_port for access in known.forwards.values()] if known else [])
    _must_have_memory(session, plan, known.memory_mib if known and running else 0)


def before_start(session: Session, lab: Lab, record: Record) -> None:
    """Memory and disk for the VM are there. Raises BlockedError."""
    _must_have_memory(session, record)
    session.factories.require_space(lab.folder, _DISK_BYTES, f"the disk of lab {lab.name}")


def _must_have_memory(session: Session, record: Record, freed_mib: int = 0) -> None:
    """`freed_mib` is what another VM gives back first. Raises BlockedError."""
    host, wanted = session.factories.host(), record.memory_mib * _MIB
    available = host.memory_available + freed_mib * _MIB
    what = f"the VM takes {record.memory_mib} MiB of memory, and {available // _MIB} MiB is available"
    if available >= wanted:
        return
    if host.mac and host.memory_total >= wanted + MAC_KEEPS_BYTES:
        session.steps.note(f"{what} at once: macOS frees more when it is asked for, and may become slow")
        return
    if host.mac:
        what = f"the VM takes {record.memory_mib} MiB of memory, and this Mac has {_mib(host.memory_total)}"
    raise BlockedError(
        what, hint="close something, or make a smaller lab: set vm.memory_mib lower and use --fresh"
    )


def _mib(number: int) -> str:
    return f"{number // _MIB} MiB"

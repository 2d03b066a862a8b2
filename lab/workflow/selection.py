"""Engine and emulator of a new lab: choices `auto` leaves to lab, said aloud and kept in its record."""

from __future__ import annotations

import contextlib
import sys

from lab import engines
from lab.config import Settings
from lab.config.model import leaves
from lab.core.errors import BlockedError, LabError, UsageError
from lab.emulators import NONE
from lab.emulators.kind import EmulatorKind
from lab.images import cache
from lab.records.labs import Lab
from lab.records.record import Record, new_record
from lab.workflow import consent
from lab.workflow.guest_image import ASKED_FOR, must_hold_image, purposes
from lab.workflow.session import Session

CANARY, ANDROID = "canary", "docker-android"
PREFERRED, FALLBACK = ANDROID, CANARY
"""The emulators `auto` stands for: the first where it fits, else the second."""
_REACH_SECONDS = 3.0
_DEFAULTS = ("default", "lab.toml")
"""Origins of values that nobody need have chosen."""


def record_for(session: Session, lab: Lab, plan: Record | None = None) -> Record:
    """The lab's record: `plan`, or one made from the settings, for a new lab; an old one's is checked
    against them. Raises UsageError."""
    if (known := lab.read()) is not None:
        _must_agree(session.settings, known)
        check_emulator(session, known.emulator)
        return known
    record = plan or planned(session, lab.name)
    lab.create(record)
    return record


def planned(session: Session, name: str) -> Record:
    """The record of a new lab, from the settings; nothing is made. Raises UsageError for what cannot be."""
    settings = session.settings
    engine = engine_name(session)
    emulator, why = emulator_kind(session, engine)
    check_emulator(session, emulator)
    memory_mib, disk_gib = _vm_size(session, emulator)
    must_hold_image(session, engine, disk_gib)
    return new_record(
        name,
        engine=engine,
        acceleration=settings.qemu.acceleration,
        emulator=emulator,
        emulator_why=why,
        cpus=settings.vm.cpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        paravirt=settings.vm.paravirt,
        nested=settings.vm.nested,
        docker_package=settings.docker.package,
    )


def check_emulator(session: Session, kind: str) -> None:
    """Raise UsageError for settings that an emulator of this kind cannot be started with."""
    if kind != NONE:
        session.factories.emulator_kind(kind, session.settings).check()


def engine_name(session: Session) -> str:
    """The engine asked for, or for `auto` the first that can start a 64-bit VM here, and why.

    If no engine works yet, the last by preference: lab can install it. On a Mac with VirtualBox, which
    the theory is about, it is not taken in its place. Raises BlockedError there, with VirtualBox's reason.
    """
    if session.settings.engine != "auto":
        return session.settings.engine
    *preferred, last = engines.automatic()
    refusals = []
    for name in preferred:
        engine = session.engine(name)
        availability = engine.availability()
        if availability.broken and sys.platform == "darwin":
            raise BlockedError(
                f"{name} is installed here and cannot be used: {availability.why}",
                hint=f"{availability.hint}; another engine, which is not what the theory is about: "
                f"`--engine {last}`".removeprefix("; "),
            )
        if not availability.usable:
            refusals.append(f"{name}: {availability.why}")
        elif session.settings.vm.nested and not session.interactive and not consent.given(session, engine):
            refusals.append(f"{name}: nobody can be asked whether a nested start may go ahead here")
        else:
            session.steps.note(f"engine: {name} ({availability.why})")
            return name
    session.steps.note(f"engine: {last}, because {'; '.join(refusals)}")
    return last


def emulator_kind(session: Session, engine: str) -> tuple[str, str]:
    """The kind of emulator asked for, or what `auto` stands for here; and why.

    `auto` asks the engine, and has it installed for that. Raises BlockedError where a person refused.
    """
    wanted = session.settings.emulator.kind
    if wanted != "auto":
        return wanted, ASKED_FOR
    why_not = _not_installed(session, engine) or _unfit(session, engine)
    kind = FALLBACK if why_not else PREFERRED
    why = f"{why_not}: the {kind} is taken" if why_not else "its image is here, or can be fetched"
    session.steps.note(f"emulator: {kind} ({why})")
    return kind, why


def _not_installed(session: Session, engine: str) -> str:
    """Have the engine installed: one that is still to be says nothing of itself. Why it cannot be, if so."""
    with contextlib.suppress(LabError):
        if session.engine(engine).availability().usable:
            return ""
    try:
        session.need(purposes(session, engine))
    except BlockedError as error:  # the rung host.engine ends in it, with the command to type
        if session.interactive:
            raise  # a person was asked, and is not asked the same again
        return f"{engine} cannot be asked whether it nests ({error.what})"
    return ""


def _unfit(session: Session, engine: str) -> str:
    """Why a new lab does not run the preferred emulator unless it is asked for; empty when it does."""
    kind, reasons = session.factories.emulator_kind(PREFERRED, session.settings), []
    if nesting := _no_hardware_nesting(session, engine):
        reasons.append(nesting)
    if unavailable := kind.why_no_image(_REACH_SECONDS):
        reasons.append(unavailable)
    else:
        reasons += kind.lacking(*_wanted_size(session, kind))
    return ", and ".join(reasons)


def _vm_size(session: Session, emulator: str) -> tuple[int, int]:
    """(MiB of memory, GiB of disk) of a new lab's VM: what its emulator needs, where nothing else was set.

    Raises UsageError for settings that cannot hold it.
    """
    vm = session.settings.vm
    if emulator == NONE:
        return vm.memory_mib, vm.disk_gib
    kind = session.factories.emulator_kind(emulator, session.settings)
    memory, disk = _wanted_size(session, kind)
    if lacking := kind.lacking(memory, disk):
        raise UsageError("; ".join(lacking), hint=kind.hint())
    if (memory, disk) != (vm.memory_mib, vm.disk_gib):
        of = "Android" if emulator == PREFERRED else emulator
        session.steps.note(f"VM: {memory} MiB of memory and a disk of {disk} GiB, for {of}")
    return memory, disk


def _wanted_size(session: Session, kind: EmulatorKind) -> tuple[int, int]:
    """(MiB, GiB) of a VM for this kind: no less than it should have, where nobody said how large."""
    settings, (least_mib, least_gib) = session.settings, kind.vm_size()
    memory, disk = settings.vm.memory_mib, settings.vm.disk_gib
    if not _is_set(settings, "vm.memory_mib"):
        memory = max(memory, min(least_mib, session.factories.host().memory_total >> 20))
    if not _is_set(settings, "vm.disk_gib"):
        disk = max(disk, least_gib)
    return memory, disk


def _is_set(settings: Settings, key: str) -> bool:
    """Whether somebody chose the value: lab.toml as it comes says what the defaults are."""
    return settings.origins[key] not in _DEFAULTS or settings.value(key) != leaves()[key].default


def _no_hardware_nesting(session: Session, engine: str) -> str:
    if not session.settings.vm.nested:
        return "nesting is switched off"
    try:
        nesting = session.engine(engine).facts().nesting
    except LabError as error:  # its rung will say so, too
        return f"{engine} does not say whether it nests ({error.what})"
    if nesting == "hardware":
        return ""
    return f"nesting is {nesting} here: Android would take hours, if it boots at all"


def _must_agree(settings: Settings, record: Record) -> None:
    """What a flag asks for must be what the lab is; what files say is only for new labs."""
    wanted = {
        "engine": (settings.engine, record.engine),
        "emulator.kind": (settings.emulator.kind, record.emulator),
        "image": (settings.image, cache.name_of(record.image)),
    }
    for key, (value, actual) in wanted.items():
        flagged = settings.origins[key].startswith("flag")
        if flagged and value != "auto" and actual and actual != value:
            raise UsageError(
                f"lab {record.name} has {key.partition('.')[0]} {actual}, not {value}",
                hint="`--fresh` destroys it and makes a new one, or choose another --name",
            )

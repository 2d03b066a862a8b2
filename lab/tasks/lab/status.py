"""lab.status and lab.list: looking without touching."""

from __future__ import annotations

import shlex

from lab.core import files, lock, system
from lab.core.deadline import Deadline
from lab.core.errors import InterruptedByUser, LabError
from lab.core.showing import labelled, table
from lab.documents.labs import (
    HALF_MADE,
    UNKNOWN,
    UNREADABLE,
    KnownEmulator,
    LabList,
    LabState,
    LabStatus,
    ListedLab,
    MainContainer,
    StatusOfLab,
)
from lab.emulators import MAIN
from lab.emulators.protocol import ContainerState
from lab.engines.protocol import State
from lab.records import evidence
from lab.records.record import Record
from lab.workflow import access
from lab.workflow.emulator_status import all_known
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_GUEST_SECONDS = 30.0


def status(session: Session, name: str, deep: bool = False) -> Reply:
    """One lab: state, ports, who holds it; half-made ones too. `deep` logs in and asks Docker."""
    bench = Workbench.open(session, name)
    record, state, emulators = _seen(bench)
    with system.explained(session.settings.state_dir):
        held = lock.holder(bench.lab.lock_file)
        runs = evidence.runs(session.store.evidence_folder, name)
        used = files.space_used(bench.lab.folder)
    running = state == State.RUNNING
    status = LabStatus(
        lab=StatusOfLab(
            name=name,
            uuid=record.uuid if record else None,
            state=state,
            engine=record.engine if record else None,
            acceleration=(record.ran or record.acceleration) if record else None,
            image=(record.image or None) if record else None,
            emulator=record.emulator if record else None,
            created=record.created if record else None,
        ),
        emulators=emulators,
        forwards=access.forwards(bench) if record else (),
        ssh=access.ssh(bench) if running else None,
        adb=access.adb(bench) if running else None,
        holder=held,
        container=_container(bench) if deep and running else None,
        evidence=str(runs[-1]) if runs else None,
        disk_bytes=used,
    )
    bench.close()
    return Reply.of(status, *_lines(status))


def list_labs(session: Session) -> Reply:
    """All labs, each as far as it can be read."""
    rows: list[ListedLab] = []
    for lab in session.store.labs():
        record, state, emulators = _seen(Workbench(session, lab))
        rows.append(
            ListedLab(
                name=lab.name,
                uuid=record.uuid if record else None,
                state=state,
                engine=record.engine if record else None,
                created=record.created if record else None,
                emulators=emulators,
            )
        )
    listed = table(
        ("name", "state", "engine", "created", "emulators"),
        (
            (
                row.name,
                str(row.state),
                row.engine or "-",
                row.created or "-",
                "\n".join(map(_in_a_line, row.emulators)) or "-",
            )
            for row in rows
        ),
    )
    return Reply.of(LabList(labs=rows), listed if rows else "no labs: `bin/invoke lab.up` makes one")


def _seen(bench: Workbench) -> tuple[Record | None, LabState, list[KnownEmulator]]:
    """Record, state and emulators of a lab. One that cannot be read, or whose engine is gone, hides no other:
    why is said beside it."""
    record: Record | None = None
    state: LabState = UNREADABLE
    emulators: list[KnownEmulator] = []
    try:
        with system.explained(bench.session.settings.state_dir):
            record = bench.lab.read()
            state = UNKNOWN
            emulators = all_known(bench) if record else []
            state = bench.machine_state() if record else HALF_MADE
    except InterruptedByUser:
        raise
    except LabError as error:
        hint = f" ({error.hint})" if error.hint else ""
        bench.session.steps.note(f"lab {bench.lab.name}: {error.what}{hint}")
    return record, state, emulators


def _container(bench: Workbench) -> ContainerState | None:
    """What Docker says, asked for as long as a person would wait; None when it does not answer."""
    emulator = bench.main_emulator()
    if emulator is None:
        return None
    try:
        bench.guest.open(Deadline.after(_GUEST_SECONDS))
        return emulator.state(bench.guest)
    except LabError:
        return None


def _lines(status: LabStatus) -> list[str]:
    lab, container, holder = status.lab, status.container, status.holder
    beside = [("beside", _in_a_line(entry)) for entry in status.emulators if entry.name != MAIN]
    lines = [
        ("lab", f"{lab.name} ({lab.uuid or 'no record yet'})"),
        ("state", lab.state),
        ("engine", f"{lab.engine}, acceleration {lab.acceleration}" if lab.engine else ""),
        ("image", lab.image or ""),
        ("emulator", lab.emulator or ""),
        ("container", _words_of(container) if container else ""),
        ("ssh", status.ssh.command if status.ssh else ""),
        ("adb", f"adb connect {shlex.quote(status.adb.address)}" if status.adb else ""),
        ("held by", f"{holder.verb} (pid {holder.pid}, since {holder.since})" if holder else ""),
        ("screen", _screen(status)),
        ("evidence", status.evidence or ""),
        ("on disk", f"{status.disk_bytes >> 20} MiB"),
        *beside,
    ]
    return labelled(lines, 11)


def _screen(status: LabStatus) -> str:
    pages = [entry.novnc.address for entry in status.emulators if entry.name == MAIN and entry.novnc]
    return pages[0] if status.adb and pages else ""


def _in_a_line(emulator: KnownEmulator) -> str:
    ways = [f"{port.service} {port.address}" for port in emulator.ports]
    return ", ".join([f"{emulator.name}: {emulator.kind}", *ways])


def _words_of(container: MainContainer) -> str:
    running = "running" if container.running else "not running"
    return f"{running}, {container.health or 'no word on its health'}"

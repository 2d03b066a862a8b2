"""Looking without touching: status, list, config."""

from __future__ import annotations

import shlex
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from lab.config import effective
from lab.core import lock, system
from lab.core.deadline import Deadline
from lab.core.errors import InterruptedByUser, LabError
from lab.core.web import shown
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
from lab.records.labs import Record
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
    )
    bench.close()
    return Reply(status.as_json(), lambda console: _show_status(console, status))


def list_labs(session: Session) -> Reply:
    rows: list[ListedLab] = []
    for lab in session.store.labs():
        bench = Workbench(session, lab)
        record, state, emulators = _seen(bench)
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

    def tell(console: Console) -> None:
        if not rows:
            console.print("no labs: `bin/invoke lab.up` makes one", markup=False, highlight=False)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("name", "state", "engine", "created", "emulators"):
            table.add_column(column)
        for row in rows:
            emulators = "\n".join(_in_a_line(entry) for entry in row.emulators)
            table.add_row(row.name, str(row.state), row.engine or "-", row.created or "-", emulators or "-")
        if rows:
            console.print(table)

    return Reply(LabList(labs=rows).as_json(), tell)


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


def config(session: Session) -> Reply:
    from lab.documents.host import LabConfig
    from lab.workflow import mirror  # what builds images is of no use to status and list

    rows = [
        replace(row, value=shown(used.address), origin=used.origin)
        if row.key == mirror.KEY and not row.value and (used := mirror.known(session))
        else row
        for row in effective(session.settings)
    ]

    def tell(console: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("key", "value", "from"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(row.key, str(row.value), row.origin)
        console.print(table)

    return Reply(LabConfig(values=rows).as_json(), tell)


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


def _show_status(console: Console, status: LabStatus) -> None:
    lab, container, holder = status.lab, status.container, status.holder
    lines = {
        "lab": f"{lab.name} ({lab.uuid or 'no record yet'})",
        "state": lab.state,
        "engine": f"{lab.engine}, acceleration {lab.acceleration}" if lab.engine else "",
        "image": lab.image or "",
        "emulator": lab.emulator or "",
        "container": _words_of(container) if container else "",
        "ssh": status.ssh.command if status.ssh else "",
        "adb": f"adb connect {shlex.quote(status.adb.address)}" if status.adb else "",
        "held by": f"{holder.verb} (pid {holder.pid}, since {holder.since})" if holder else "",
        "screen": _screen(status),
        "evidence": status.evidence or "",
    }
    beside = [_in_a_line(entry) for entry in status.emulators if entry.name != MAIN]
    for label, text in [*lines.items(), *(("beside", line) for line in beside)]:
        if text:
            console.print(f"{label + ':':<11}{text}", markup=False, highlight=False, soft_wrap=True)


def _screen(status: LabStatus) -> str:
    pages = [entry.novnc.address for entry in status.emulators if entry.name == MAIN and entry.novnc]
    return pages[0] if status.adb and pages else ""


def _in_a_line(emulator: KnownEmulator) -> str:
    ways = [f"{port.service} {port.address}" for port in emulator.ports]
    return ", ".join([f"{emulator.name}: {emulator.kind}", *ways])


def _words_of(container: MainContainer) -> str:
    running = "running" if container.running else "not running"
    return f"{running}, {container.health or 'no word on its health'}"

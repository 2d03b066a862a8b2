"""Removing a lab, whole or half-made: its VM first, its evidence never unless that is asked for."""

from __future__ import annotations

import shutil

from lab import engines
from lab.adb import AdbServer
from lab.config.names import check_name
from lab.core import system
from lab.core.errors import LabError
from lab.engines.protocol import State
from lab.records.evidence import Run
from lab.records.labs import Lab
from lab.records.record import Record
from lab.workflow import remains
from lab.workflow.answers import lab_action
from lab.workflow.collect import collect
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def destroy(session: Session, name: str, purge: bool = False) -> Reply:
    """Remove the lab, whole or half-made, its VM first. Its evidence stays, unless `purge`.

    A record that cannot be read is no obstacle (lab.workflow.remains). Raises InconclusiveError, with nothing
    removed, when there may be a VM and it cannot be told which one.
    """
    check_name(name)
    bench = Workbench.open(session, name)
    notes: list[str] = []
    with (
        system.explained(session.settings.state_dir),
        bench.lab.hold("lab.destroy"),
        session.steps.step("destroy", name),
    ):
        record = _known(bench.lab, notes)
        if record is not None:
            bench = Workbench(session, bench.lab, record)
            try:
                run = Run(session.store.evidence_folder, name, "destroy")
                session.evidence = run.path
                collect(bench, run, reach_guest=False)
            except OSError as error:  # a full disk, and this is what makes room
                notes.append(f"its last evidence could not be saved: {error}")
            bench.close()
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        if record is not None and (record.image or not engines.is_empty(bench.lab.vm_folder)):
            bench.machine.destroy()
        bench.lab.remove()
    session.evidence = None
    evidence = session.store.evidence_folder / name
    if purge:
        shutil.rmtree(evidence, ignore_errors=True)
    if evidence.exists():
        kept = "could not be removed" if purge else "is kept"
        notes.append(f"its evidence {kept} in {evidence}")
    return lab_action(name, "destroy", State.ABSENT, True, notes, "gone")


def _known(lab: Lab, notes: list[str]) -> Record | None:
    """The record, or what is left of it; None when no engine made anything for the lab."""
    record: Record | None = None
    try:
        record = lab.read()
    except LabError as error:
        notes.append(error.what)
    return remains.record(lab, record)

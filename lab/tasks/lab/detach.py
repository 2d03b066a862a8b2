"""lab.detach: all that lab made in somebody's machine is taken away, and nothing else."""

from __future__ import annotations

from lab.adb import AdbServer
from lab.config.names import check_name
from lab.core import system
from lab.core.errors import InconclusiveError, InterruptedByUser, LabError, UsageError
from lab.engines.attached import link as links
from lab.engines.protocol import State
from lab.records.record import Record
from lab.workflow import attached, remains
from lab.workflow.answers import lab_action
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def detach(session: Session, name: str, forget: bool = False) -> Reply:
    """Remove lab's containers, images and files from the machine, end the forwards, forget the lab.

    Its evidence stays. Raises UsageError when the lab is no attached machine, InconclusiveError when the
    machine cannot be reached, unless `forget`: then what is in it stays, and is named.
    """
    lab = session.store.get(check_name(name))
    notes: list[str] = []
    with (
        system.explained(session.settings.state_dir),
        lab.hold("lab.detach"),
        session.steps.step("detach", name),
    ):
        record = _record(session, name)
        AdbServer(lab.adb_folder, lab.journal).stop()
        if record is not None:
            bench = Workbench(session, lab, record)
            notes += _leave(bench, record, forget)
            attached.close_ports(bench)
        lab.remove()
    evidence = session.store.evidence_folder / name
    if evidence.exists():
        notes.append(f"its evidence is kept in {evidence}")
    return lab_action(name, "detach", State.ABSENT, True, notes, "detached")


def _record(session: Session, name: str) -> Record | None:
    """The lab's record, or what is left of it; None for one whose creation was cut short at once."""
    lab = session.store.get(name)
    known: Record | None = None
    try:
        known = lab.read()
    except InterruptedByUser:
        raise
    except LabError:
        pass  # what is left of it is enough
    record = remains.record(lab, known)
    if record is not None and not attached.is_attached(record):
        raise UsageError(
            f"lab {name} is no attached machine: its engine is {record.engine}",
            hint=f"`invoke lab.destroy --name {name}` removes it",
        )
    return record


def _leave(bench: Workbench, record: Record, forget: bool) -> list[str]:
    lab = bench.lab
    link = links.read(lab.vm_folder)
    if link is None or (link.way is not None and link.key is None):
        return []  # lab was never in
    try:
        with bench.session.steps.step("machine.leave", str(link)):
            return attached.remove_all(lab, record)
    except InterruptedByUser:
        raise
    except LabError as error:
        if not forget:
            raise InconclusiveError(
                f"what lab made in {link} may still be there: {error.what}",
                hint="try again when it answers; --forget forgets the lab, and leaves what is in the machine",
                tail=error.tail,
            ) from error
        return [
            f"{link} was not reached ({error.what}): what has the label io.lab.uuid={record.uuid} in its "
            f"Docker, and {attached.folder(record)}, are still there"
        ]

"""lab.snapshot, lab.restore and lab.snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from lab.config.names import check_snapshot_name
from lab.core.errors import LabError, UsageError
from lab.documents.labs import LabSnapshots, SnapshotEntry
from lab.emulators import MAIN
from lab.engines.protocol import Forward, State
from lab.records.record import Saved
from lab.workflow import waking
from lab.workflow.answers import acted
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def snapshot(session: Session, name: str, snapshot: str) -> Reply:
    """Take a snapshot, of memory too when the VM runs. Raises UsageError for a name that is taken."""
    check_snapshot_name(snapshot)
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.snapshot"):
        bench.state_of_vm()
        record = bench.record()
        with session.steps.step("vm.snapshot", snapshot):
            if any(item.name == snapshot for item in bench.machine.snapshots()):
                raise UsageError(f"there is a snapshot `{snapshot}` already", hint="choose another name")
            # Before it is taken: one that is there must be known.
            now = Saved(boot_id=record.boot_id, instances=record.instances)
            bench.lab.change(saved=record.saved | {snapshot: now})
            bench.machine.snapshot(snapshot)
        return acted(bench, "snapshot", True, [f"`lab.restore {snapshot}` goes back to it"])


def restore(session: Session, name: str, snapshot: str) -> Reply:
    """Go back to a snapshot; a VM that ran then runs again, its emulators as they were."""
    check_snapshot_name(snapshot)
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.restore"):
        bench.state_of_vm()
        with session.steps.step("vm.restore", snapshot):
            before = bench.record()
            # In that memory are the emulators of then, on their ports, with their nonces.
            main = {name: known for name, known in before.instances.items() if name == MAIN}
            then = before.saved.get(snapshot, Saved(boot_id=before.boot_id, instances=main))
            bench.lab.change(instances=then.instances)
            begun = False

            def back(forwards: Sequence[Forward]) -> None:
                nonlocal begun
                begun = True
                bench.machine.restore(snapshot, forwards)

            try:
                waking.start_on_ports(bench, back)
            except LabError as error:
                if not begun or isinstance(error, UsageError):  # nothing was done
                    bench.lab.change(instances=before.instances, forwards=before.forwards)
                raise
            bench.lab.change(boot_id=then.boot_id)
        running = bench.machine.status() is State.RUNNING
        return acted(
            bench, "restore", True, waking.come_back(bench) if running else ["the VM is off, as it was then"]
        )


def snapshots(session: Session, name: str) -> Reply:
    """The snapshots of a lab."""
    bench = Workbench.open(session, name)
    taken = bench.machine.snapshots() if bench.record().image else []
    rows = [SnapshotEntry(name=item.name, created=item.created.isoformat(), live=item.live) for item in taken]
    lines = [
        f"{row.name:<20} {row.created}  {'with memory' if row.live else 'disk only'}" for row in rows
    ] or [f"lab {name} has no snapshots"]
    return Reply.of(LabSnapshots(lab=name, snapshots=rows), *lines)

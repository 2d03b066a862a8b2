"""halt, suspend, resume, snapshots, destroy: what is done to a lab as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from lab.adb import AdbServer
from lab.config.names import check_snapshot_name
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, InterruptedByUser, LabError, UsageError
from lab.documents.labs import LabAction, LabSnapshots, SnapshotEntry
from lab.emulators import MAIN
from lab.engines.protocol import HELD, DiskFullError, Forward, State
from lab.guest import clock
from lab.ladder.rungs import nested
from lab.records.labs import Saved
from lab.tasks.lab import open as screen
from lab.workflow import ports
from lab.workflow.destroy import says
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def halt(session: Session, name: str) -> Reply:
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.halt"), session.steps.step("vm.stop") as step:
        if not bench.record().image:
            return _reply(bench, "halt", False, ["its VM was never made"])
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        screen.shut(bench.lab)
        how = bench.machine.stop(Deadline.after(session.settings.deadlines.stop))
        step.result = how
        notes = {
            "graceful": "powered off",
            "forced": "did not power off in time: ended",
            "already": "was off",
        }
        return _reply(bench, "halt", how != "already", [notes[how]])


def suspend(session: Session, name: str) -> Reply:
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.suspend"):
        state = _state_of(bench)
        if state is State.SUSPENDED:
            return _reply(bench, "suspend", False, ["was suspended"])
        if state is State.DISK_FULL:
            raise DiskFullError(bench.lab.vm_folder, name)  # its memory would find no place either
        if state not in (State.RUNNING, State.PAUSED):  # paused: a suspend was cut short
            raise UsageError(f"lab {name} is {state}: only a running lab can be suspended")
        with session.steps.step("vm.suspend"):
            bench.machine.suspend()
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        return _reply(bench, "suspend", True, ["`lab.resume` brings it back where it was"])


def resume(session: Session, name: str) -> Reply:
    """Back to where it was: the VM's clock set, and L2 answering over ADB if it did before."""
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.resume"):
        state = _state_of(bench)
        if state is State.RUNNING:
            _set_clock(bench)  # an earlier resume may have been cut short before it was
            return _reply(bench, "resume", False, ["was running"])
        if state is not State.SUSPENDED and state not in HELD:
            raise UsageError(
                f"lab {name} is {state}: there is nothing to resume", hint="`invoke lab.up` starts it"
            )
        with session.steps.step("vm.resume"):
            if state in HELD:  # it holds its ports itself
                bench.machine.resume(ports.forwards(bench.lab))
                bench.close()
            else:
                _with_ports(bench, bench.machine.resume)
        return _reply(bench, "resume", True, _back(bench))


def snapshot(session: Session, name: str, snapshot: str) -> Reply:
    check_snapshot_name(snapshot)
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.snapshot"):
        _state_of(bench)
        record = bench.record()
        with session.steps.step("vm.snapshot", snapshot):
            if any(item.name == snapshot for item in bench.machine.snapshots()):
                raise UsageError(f"there is a snapshot `{snapshot}` already", hint="choose another name")
            # Before it is taken: one that is there must be known.
            now = Saved(boot_id=record.boot_id, instances=record.instances)
            bench.lab.change(saved=record.saved | {snapshot: now})
            bench.machine.snapshot(snapshot)
        return _reply(bench, "snapshot", True, [f"`lab.restore {snapshot}` goes back to it"])


def restore(session: Session, name: str, snapshot: str) -> Reply:
    check_snapshot_name(snapshot)
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.restore"):
        _state_of(bench)
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
                _with_ports(bench, back)
            except LabError as error:
                if not begun or isinstance(error, UsageError):  # nothing was done
                    bench.lab.change(instances=before.instances, forwards=before.forwards)
                raise
            bench.lab.change(boot_id=then.boot_id)
        running = bench.machine.status() is State.RUNNING
        return _reply(bench, "restore", True, _back(bench) if running else ["the VM is off, as it was then"])


def snapshots(session: Session, name: str) -> Reply:
    bench = Workbench.open(session, name)
    found = bench.machine.snapshots() if bench.record().image else []
    rows = [SnapshotEntry(name=item.name, created=item.created.isoformat(), live=item.live) for item in found]

    def tell(console: Console) -> None:
        for row in rows:
            kind = "with memory" if row.live else "disk only"
            console.print(f"{row.name:<20} {row.created}  {kind}", highlight=False)
        if not rows:
            console.print(f"lab {name} has no snapshots", highlight=False)

    return Reply(LabSnapshots(lab=name, snapshots=rows).as_json(), tell)


def _state_of(bench: Workbench) -> State:
    if not bench.record().image:
        raise UsageError(
            f"lab {bench.lab.name} has no VM yet", hint=f"`invoke lab.up --name {bench.lab.name}` makes it"
        )
    return bench.machine.status()


def _with_ports(bench: Workbench, start: Callable[[Sequence[Forward]], None]) -> None:
    """Start on the lab's ports, those it holds while it runs among them."""
    running = bench.machine.status() in {State.RUNNING, *HELD}
    held = [forward.host_port for forward in ports.forwards(bench.lab)] if running else []
    fixed = bench.session.settings.ports.model_dump()
    ports.start_on_free_ports(
        lambda: ports.choose(bench.lab, bench.guest_ports(), fixed, bench.session.steps, held), start
    )
    bench.close()


def _back(bench: Workbench) -> list[str]:
    """What a VM needs that slept: its clock set. And is each L2 there again? All are asked, then told of."""
    _set_clock(bench)
    notes: list[str] = []
    lost: dict[str, LabError] = {}
    for name, known in bench.record().instances.items():
        if not known.nonce:
            continue
        if name != MAIN and not bench.emulator(name).state(bench.guest).running:
            notes.append(f"{name} does not run")  # nor did it before: a container does not end in its sleep
            continue
        try:
            notes.append(_answers(bench, name))
        except InterruptedByUser:
            raise
        except LabError as error:
            lost[name] = error
    if lost:
        raise _lost(lost)
    return notes


def _lost(lost: Mapping[str, LabError]) -> LabError:
    """The error for emulators that did not come back; it counts as the first of theirs does."""
    name, first = next(iter(lost.items()))
    families = (BlockedError, InconclusiveError, LabError)
    family = next(kind for kind in families if isinstance(first, kind))
    said = [error.what if name == MAIN else f"{name}: {error.what}" for name, error in lost.items()]
    start = "lab.up" if name == MAIN else f"emulator.restart {name}"
    return family(
        f"the VM is back, but its guest is not: {'; '.join(said)}",
        hint=first.hint or f"`invoke {start}` starts it anew",
        evidence=first.evidence,
        tail=first.tail,
    )


def _answers(bench: Workbench, name: str) -> str:
    """Ask one L2 over ADB. Raises LabError with what it said when it is not what it was."""
    main = name == MAIN
    site = bench.site(boot_seconds=bench.session.settings.deadlines.ssh, instance=name)
    site.boot_id = bench.record().boot_id
    with bench.session.steps.step(nested.adb.name, "" if main else name) as step:
        seen = nested.adb(site)
        step.result = seen.observed
    if not seen.ok:
        raise LabError(seen.observed)
    return f"{'ADB' if main else name} answers at {site.tools.adb_address}"


def _set_clock(bench: Workbench) -> None:
    with bench.session.steps.step("vm.clock"):
        clock.set_now(bench.guest, Deadline.after(bench.session.settings.deadlines.ssh))


def _reply(bench: Workbench, action: str, changed: bool, notes: list[str]) -> Reply:
    state = bench.machine_state()
    done = LabAction(lab=bench.lab.name, action=action, state=state, changed=changed, notes=notes)
    bench.close()
    return Reply(done.as_json(), says(f"lab {bench.lab.name} is {state}", notes))

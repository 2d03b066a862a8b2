"""The emulators of one VM: one more, how they are, one less."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console

from lab import emulators
from lab.adb import AdbServer
from lab.config.names import check_instance_name
from lab.core.errors import ExitCode, LabError, UsageError
from lab.core.showing import show, table
from lab.documents.emulators import EmulatorAction, EmulatorList, EmulatorStatus, EmulatorUp
from lab.records.evidence import Run
from lab.records.record import Instance
from lab.workflow import attached, emulator_status, ports, selection
from lab.workflow.emulator_start import Launch
from lab.workflow.emulator_status import Sight
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def up(session: Session, name: str, emulator: str = emulators.MAIN, kind: str = "") -> Reply:
    """Start an emulator in a VM that runs, the main one or one beside it; wait until it is usable."""
    check_instance_name(emulator)
    with _working(session, name, "emulator.up") as bench:
        _claim(bench, emulator, kind)
        return _started(bench, emulator, anew=False)


def restart(session: Session, name: str, emulator: str = emulators.MAIN) -> Reply:
    """End an emulator and launch it anew; wait until it is usable."""
    with _working(session, name, "emulator.restart") as bench:
        bench.instance(emulator)
        return _started(bench, emulator, anew=True)


def down(session: Session, name: str, emulator: str = emulators.MAIN) -> Reply:
    """End an emulator. One beside the main one is forgotten, and its ports are free again."""
    with _working(session, name, "emulator.down") as bench:
        known, payload = bench.instance(emulator), bench.emulator(emulator)
        with session.steps.step("emulator.down", emulator):
            changed = payload.state(bench.guest).exists
            payload.stop(bench.guest)
            if address := bench.addresses(emulator).get("adb"):
                AdbServer(bench.lab.adb_folder, bench.lab.journal).disconnect(address)
            if emulator == emulators.MAIN:
                bench.lab.change(verdict="")
                bench.lab.change_instance(emulator, nonce="", failed_launches=[])
            else:
                ports.close_at_run_time(bench.lab, bench.machine, bench.ports_of(emulator))
                bench.lab.forget_instance(emulator)
                changed = True
        notes = [f"its ports are free, and so is number {known.index}"] if known.index else []
        return acted(bench, emulator, "down", changed, notes or ["`emulator.up` starts it again"])


def status(session: Session, name: str, emulator: str = "") -> Reply:
    """How every emulator is, or the one that is named: container, checks, timeline, diagnoses."""
    bench = Workbench.open(session, name)
    try:
        bench.lab.record()
        names = [emulator] if emulator else list(bench.record().instances)
        sights = [emulator_status.look(bench, each) for each in names]
        status = EmulatorStatus(
            lab=name, state=bench.machine_state(), emulators=[sight.entry() for sight in sights]
        )
    finally:
        bench.close()

    def tell(console: Console) -> None:
        if not sights:
            show(console, f"lab {name} has no emulator")
        for sight in sights:
            sight.show(console)

    return Reply(status.as_json(), tell, _worst(sights))


def list_emulators(session: Session, name: str) -> Reply:
    """Every emulator of the lab's record and its ports; nobody is asked."""
    bench = Workbench.open(session, name)
    bench.lab.record()
    rows = emulator_status.all_known(bench)
    ways = {
        row.name: "\n".join(emulator_status.reached(port.service, port.address) for port in row.ports)
        for row in rows
    }
    listed = table(
        ("name", "kind", "reached by"), ((row.name, row.kind, ways[row.name] or "-") for row in rows)
    )
    return Reply.of(EmulatorList(lab=name, emulators=rows), listed)


def acted(bench: Workbench, emulator: str, action: str, changed: bool, notes: Sequence[str]) -> Reply:
    """The answer of what was done with one emulator."""
    done = EmulatorAction(lab=bench.lab.name, emulator=emulator, action=action, changed=changed, notes=notes)
    return Reply.of(done, f"{emulator}: {action}", *notes)


def free_index(known: Mapping[str, Instance]) -> int:
    """The lowest number that no emulator of the lab has; 0 is the main one's."""
    taken = {0, *(instance.index for instance in known.values())}
    return next(number for number in range(1, len(taken) + 1) if number not in taken)


@contextlib.contextmanager
def _working(session: Session, name: str, verb: str) -> Iterator[Workbench]:
    """The workbench of a lab whose VM runs, held for this command."""
    bench = Workbench.open(session, name)
    with bench.lab.hold(verb):
        try:
            bench.require_running()
            if attached.is_attached(bench.record()):
                attached.open_ports(bench)
            yield bench
        finally:
            bench.close()


def _claim(bench: Workbench, name: str, kind: str) -> None:
    """Have this emulator in the record before anything of it is made."""
    if name in bench.record().instances:
        known = bench.instance(name)
        if kind not in ("", "auto", known.kind):
            raise UsageError(
                f"{name} is {known.kind}, not {kind}",
                hint="`emulator.down` it first, or choose another name"
                if name != emulators.MAIN
                else "choose another name: `emulator.up NAME --kind …` starts one beside it",
            )
        return
    if name == emulators.MAIN:
        raise UsageError(
            f"lab {bench.lab.name} was made without an emulator",
            hint="start one under a name: `invoke emulator.up NAME`",
        )
    if not kind and bench.record().emulator != emulators.NONE:
        kind = bench.record().emulator  # another of the same
    if kind in ("", "auto"):
        kind, _ = selection.emulator_kind(bench.session, bench.record().engine)
    index = free_index(bench.record().instances)
    bench.session.factories.emulator(kind, bench.place(name, index))  # a kind that is none is refused first
    selection.check_emulator(bench.session, kind)
    bench.lab.change_instance(name, kind=kind, index=index)


def _started(bench: Workbench, name: str, *, anew: bool) -> Reply:
    session = bench.session
    selection.check_emulator(session, bench.instance(name).kind)
    run = Run(session.store.evidence_folder, bench.lab.name, "emulator")
    session.evidence = run.path
    session.steps.subscribe(run.steps)
    try:
        launch = Launch(bench, name)
        launch.bring()
        launch.forward()
        launched = launch.start(anew=anew)
        sight = launch.settle()
    finally:
        with contextlib.suppress(LabError):
            run.collect(_logs(bench, name))
    started = EmulatorUp(
        lab=bench.lab.name, launched=launched, emulator=sight.entry(), evidence=str(run.path)
    )
    document = started.as_json()
    run.json("emulator.json", document)

    def tell(console: Console) -> None:
        sight.show(console)
        show(console, f"evidence: {run.path}")

    return Reply(document, tell, sight.code)


def _logs(bench: Workbench, name: str) -> dict[str, Callable[[], str]]:
    texts: dict[str, str] = bench.emulator(name).logs(bench.guest)
    return {file: lambda text=text: text for file, text in texts.items()}  # type: ignore[misc]


def _worst(sights: Sequence[Sight]) -> ExitCode:
    """What a shell hears of all of them: seen to be impossible before blocked, before not yet."""
    codes = {sight.code for sight in sights}
    order = (ExitCode.REFUTED, ExitCode.BLOCKED, ExitCode.INCONCLUSIVE, ExitCode.DONE)
    return next((code for code in order if code in codes), ExitCode.BLOCKED)

"""lab.up: from nothing to a nested guest answering ADB, converging from wherever it is."""

from __future__ import annotations

import contextlib
from typing import Any, cast

from rich.console import Console

from lab import __version__
from lab.config.names import check_name
from lab.core.errors import ExitCode, LabError, UsageError
from lab.core.files import read_object, write_json
from lab.core.showing import show
from lab.core.steps import Background
from lab.core.tell import show_error
from lab.documents.climbs import LabUp
from lab.emulators import MAIN, NONE
from lab.emulators.protocol import AndroidEmulator
from lab.engines.protocol import State
from lab.ladder.facts import Facts
from lab.ladder.rungs import LADDER, android, nested
from lab.model.document import SchemaError
from lab.model.domain import Claim, Status, Verdict
from lab.records.evidence import Run
from lab.records.labs import Lab
from lab.records.record import Record
from lab.workflow import attached, emulator_start, preflight, selection
from lab.workflow.access import access, lines
from lab.workflow.build import Builder
from lab.workflow.climbing import Climbed, climb_lab
from lab.workflow.destroy import destroy
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_READY_SECONDS = 20.0


def up(session: Session, name: str, fresh: bool = False) -> Reply:
    """Create what is missing, start what is stopped, climb the ladder, say what can be done now."""
    check_name(name)
    old = session.store.find(name)
    plan = foreseen(session, name, fresh=fresh)
    if fresh and old is not None:
        destroy(session, name)
    with session.store.making(name, "lab.up") as lab:
        selection.record_for(session, lab, plan)
        bench = Workbench(session, lab)
        try:
            return _ready(bench) or _climb(bench)
        finally:
            bench.close()


def foreseen(session: Session, name: str, fresh: bool = False) -> Record | None:
    """The record that a new lab of that name is to have; None for one that is there and stays.

    All that can be refused is refused here, before anything is destroyed or made. Raises UsageError,
    BlockedError, and LabError for a record that cannot be read.
    """
    old = session.store.find(name)
    if old is not None and not fresh and (record := old.read()) is not None:
        preflight.before_building(session, record.emulator)
        return None
    if old is not None:
        _must_be_labs_own(old)
    plan = selection.planned(session, name)
    preflight.before_building(session, plan.emulator)
    if old is None or not fresh:
        preflight.before_anything(session)
    else:
        preflight.before_replacing(session, plan, old)
    return plan


def _must_be_labs_own(old: Lab) -> None:
    """Raise UsageError for a lab that is somebody's machine: lab makes none of those anew."""
    record = None
    with contextlib.suppress(LabError):  # one that cannot be read is replaced
        record = old.read()
    if attached.is_attached(record):
        raise UsageError(
            f"lab {old.name} is somebody's machine, which lab does not make anew",
            hint=f"`invoke emulator.restart --name {old.name}` launches its emulator anew; "
            f"`invoke lab.detach --name {old.name}` takes away what lab made there",
        )


def _climb(bench: Workbench) -> Reply:
    session = bench.session
    run = Run(session.store.evidence_folder, bench.lab.name, "up")
    session.evidence = run.path
    session.steps.subscribe(run.steps)
    with Background() as background:
        builder = Builder(bench, background)
        try:
            climbed = climb_lab(
                bench,
                run,
                ensure=builder.ensure(),
                boot_seconds=session.settings.deadlines.boot,
                on_outcome=builder.saw,
            )
        finally:
            builder.give_up()
    reachable = _runs(bench)
    ways = access(bench, str(run.path)) if reachable else None
    document = LabUp.made_of(climbed.document, access=ways).as_json()
    write_json(_last(bench.lab), document)

    def tell(console: Console) -> None:
        climbed.show(console)
        if climbed.climb.error is not None:
            rung, error = climbed.climb.error
            show_error(console, error, label=rung)
        if reachable:
            show(console, "", *lines(bench, None))

    return Reply(document, tell, _code(bench, climbed))


def _ready(bench: Workbench) -> Reply | None:
    """The answer for a lab that is up and confirmed, after asking L2 itself once more; else None.

    Nothing is taken from memory that could have changed: the VM must run, the container must be the one
    lab launched, by its image's content too, and the L2 that was confirmed must give its nonce back over
    ADB, under KVM, from the same boot. Where it is Android, that must have been usable, and be it now.
    """
    last, emulator = _remembered(bench), bench.main_emulator()
    if last is None or not _runs(bench) or emulator is None:
        return None
    if bench.record().verdict != Verdict.CONFIRMED or not bench.record().boot_id:
        return None  # it was looked at since, and something else was found
    site = bench.site(boot_seconds=_READY_SECONDS)
    site.adb_seconds = _READY_SECONDS
    site.boot_id = bench.record().boot_id
    try:
        with bench.session.steps.step("container", "is it still the one that was launched?") as step:
            if not emulator_start.is_still_running(bench, MAIN, emulator.state(bench.guest)):
                step.result = "it is gone, or another, or the settings or its image are others now"
                return None
        with bench.session.steps.step(nested.adb.name, "is it still what was confirmed?") as step:
            observation = nested.adb(site)
            step.result = observation.observed
        confirmed = Facts.read(last.facts).nested_adb
        if not observation.ok or site.facts.nested_adb != confirmed or not _usable(bench, last):
            return None
    except LabError:
        return None

    return Reply.of(
        last.model_copy(update={"access": access(bench, last.evidence)}),
        f"lab {bench.lab.name} is up already: nothing was changed",
        f"{last.claim}: {last.verdict}: {last.reason}",
        "",
        *lines(bench, last.evidence),
    )


def _remembered(bench: Workbench) -> LabUp | None:
    """What the last `lab.up` of this very lab confirmed; None where there is nothing, or nothing readable."""
    try:
        last = LabUp.read(read_object(_last(bench.lab)))
    except (OSError, ValueError, SchemaError):
        return None  # it only saves a climb
    if last.lab_version != __version__:
        return None  # what another lab called confirmed, this one may not
    confirmed = last.verdict is Verdict.CONFIRMED and last.lab.uuid == bench.record().uuid
    return last if confirmed else None


def _usable(bench: Workbench, last: LabUp) -> bool:
    """Whether Android was usable and is; true of what is not Android.

    Raises LabError.
    """
    emulator = bench.emulator(MAIN)
    if not emulator.android:
        return True
    if not any(row.rung == android.usable.name and row.status is Status.PASSED for row in last.rungs):
        return False
    with bench.session.steps.step(android.usable.name, "is it still what was confirmed?") as step:
        health = cast(AndroidEmulator, emulator).health(bench.reach())
        step.result = "usable" if health.usable else "not usable"
    return health.usable


def _runs(bench: Workbench) -> bool:
    """Whether L1 runs; an engine that cannot tell must not cost the answer that was found."""
    try:
        return bench.machine_state() is State.RUNNING
    except LabError:
        return False


def _code(bench: Workbench, climbed: Climbed) -> int:
    """The verdict's code, but for a lab without an emulator: it is done when all it asked for is."""
    if bench.record().emulator != NONE:
        return climbed.code
    informative = LADDER.informative(Claim.NESTING)
    needed = [outcome for outcome in climbed.climb.outcomes if outcome.rung not in informative]
    good = all(outcome.status in (Status.PASSED, Status.SKIPPED) for outcome in needed)
    return ExitCode.DONE if good else climbed.code


def _last(lab: Lab) -> Any:
    return lab.folder / "last-up.json"

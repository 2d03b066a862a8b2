"""lab.compare: why one wants nested KVM, in seconds: the same L2 with it and without, in one run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, ExitCode, InterruptedByUser, LabError, UsageError
from lab.emulators.protocol import Emulator
from lab.engines.protocol import State
from lab.experiments import measuring, turns
from lab.experiments.comparison import Comparison
from lab.records.evidence import Run
from lab.workflow.selection import CANARY
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def compare(session: Session, name: str, runs: int = 3, seed: int = 0) -> Reply:
    """`runs` boots of L2 by each route, for the canary and for the lab's own emulator if it is another.

    What was measured is kept whichever way it ends. The exit code is INCONCLUSIVE unless every
    emulator has a ratio.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} measures nothing", hint="1 gives a ratio, 3 or more its spread")
    session.again = turns.AGAIN
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.compare"):
        state = bench.machine_state()
        if state is not State.RUNNING:
            raise BlockedError(f"the VM of lab {name} is {state}", hint=f"`invoke lab.up --name {name}`")
        run = Run(session.store.evidence_folder, name, "compare")
        session.evidence = run.path
        session.steps.subscribe(run.steps)
        try:
            result = _measure(bench, run, runs, turns.seed_of(seed))
        finally:
            bench.close()
    code = ExitCode.DONE if result.complete else ExitCode.INCONCLUSIVE
    return Reply(result.document.as_json(), result.show, code)


def _measure(bench: Workbench, run: Run, runs: int, seed: int) -> Comparison:
    """What the measurements are of is asked once, before the first."""
    bench.guest.open(Deadline.after(bench.session.settings.deadlines.ssh))
    compared = _emulators(bench)
    record, engine, host = bench.record(), bench.engine.facts(), bench.session.factories.host()
    boot_id = bench.guest.read("/proc/sys/kernel/random/boot_id").strip()
    series = partial(
        Comparison.of,
        lab={"name": record.name, "uuid": record.uuid, "boot_id": boot_id},
        where={
            "host": bench.session.host(bench.host()),
            "engine": engine.engine,
            "engine_version": engine.version,
            "acceleration": engine.acceleration,
            "nesting": engine.nesting if record.nested else "none",
            "image": record.image,
        },
        emulators=[
            {"name": name, "image": emulator.image_id(), "android": emulator.android}
            for name, emulator in compared.items()
        ],
        seed=seed,
        arm=measuring.arm(host),
    )
    boots = [measuring.TimedBoot(name, route) for name in compared for route in measuring.ROUTES]
    planned = turns.plan(boots, runs, seed)
    return turns.conduct(
        run,
        planned,
        lambda: measuring.measured(bench, planned, compared, _absent(bench, compared)),
        measuring.not_taken,
        series,
    )


def _emulators(bench: Workbench) -> dict[str, Emulator]:
    """The canary, and what the lab runs if that is another."""
    own = bench.main_emulator()
    if own is not None and own.name == CANARY:
        return {CANARY: own}
    canary = bench.session.factories.emulator(CANARY, bench.place())
    return {CANARY: canary} | ({own.name: own} if own is not None else {})


def _absent(bench: Workbench, compared: Mapping[str, Emulator]) -> dict[str, str]:
    """Bring their images into L1's Docker, as far as they are not there; of each that cannot be, why."""
    steps, why = bench.session.steps, {}
    for name, emulator in compared.items():
        try:
            with steps.step("emulator.prepare", name) as step:
                emulator.prepare(step)
            with steps.step("emulator.load", name) as step:
                emulator.load(bench.guest, step)
        except InterruptedByUser:
            raise
        except LabError as error:
            why[name] = error.what
    return why

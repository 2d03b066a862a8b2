"""lab.compare: why one wants nested KVM, in seconds: the same L2 with it and without, in one run."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from lab import emulators
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, ExitCode, InterruptedByUser, LabError, UsageError
from lab.documents.measured import MeasurementOutcome
from lab.emulators.protocol import Emulator
from lab.engines.protocol import State
from lab.experiments import measuring
from lab.experiments.comparison import Comparison
from lab.experiments.measuring import Measurement, Turn
from lab.host import facts as host_facts
from lab.records.evidence import Run
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_CANARY = "canary"


def compare(session: Session, name: str, runs: int = 3, seed: int = 0) -> Reply:
    """`runs` boots of L2 by each route, for the canary and for the lab's own emulator if it is another.

    What was measured is kept whichever way it ends. The exit code is INCONCLUSIVE unless every
    emulator has a ratio.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} measures nothing", hint="1 gives a ratio, 3 or more its spread")
    session.again = measuring.AGAIN
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.compare"):
        state = bench.machine_state()
        if state is not State.RUNNING:
            raise BlockedError(f"the VM of lab {name} is {state}", hint=f"`invoke lab.up --name {name}`")
        run = Run(session.store.evidence_folder, name, "compare")
        session.evidence = run.path
        session.steps.subscribe(run.steps)
        try:
            found = _measure(bench, run, runs, seed or secrets.randbelow(2**32) + 1)
        finally:
            bench.close()
    code = ExitCode.DONE if found.complete else ExitCode.INCONCLUSIVE
    return Reply(found.document(), found.show, code)


def _measure(bench: Workbench, run: Run, runs: int, seed: int) -> Comparison:
    """Each result is on disk before the next is taken, and the picture is drawn however it ends."""
    bench.guest.open(Deadline.after(bench.session.settings.deadlines.ssh))
    found = _emulators(bench)
    so_far = _describe(bench, run, found, seed)
    turns = measuring.plan(list(found), runs, seed)
    taken: list[Measurement] = []
    ended = "its turn has not come"
    try:
        for measurement in measuring.measured(bench, turns, found, _absent(bench, found)):
            taken.append(measurement)
            run.json("compare.json", so_far(_all(turns, taken, ended)).document())
    except (InterruptedByUser, KeyboardInterrupt):
        ended = "interrupted"
        raise
    except BaseException as error:
        ended = f"lab itself failed: {error!r}"
        raise
    finally:
        result = so_far(_all(turns, taken, ended))
        result.keep(run)
    return result


def _describe(
    bench: Workbench, run: Run, found: Mapping[str, Emulator], seed: int
) -> Callable[[Sequence[Measurement]], Comparison]:
    """What a comparison is of, asked once: it makes one of what was measured until then."""
    record, engine, host = bench.record, bench.engine.facts(), host_facts.read()
    boot_id = bench.guest.read("/proc/sys/kernel/random/boot_id").strip()
    began, started = datetime.now(UTC), time.monotonic()
    where = {
        "host": bench.session.host(),
        "engine": engine.engine,
        "engine_version": engine.version,
        "acceleration": engine.acceleration,
        "nesting": engine.nesting if record.nested else "none",
        "image": record.image,
    }
    described = [
        {"name": name, "image": emulator.image_id(), "android": emulator.android}
        for name, emulator in found.items()
    ]

    def so_far(measurements: Sequence[Measurement]) -> Comparison:
        return Comparison(
            lab={"name": record.name, "uuid": record.uuid, "boot_id": boot_id},
            where=where,
            emulators=described,
            seed=seed,
            measurements=measurements,
            arm=measuring.arm(host),
            started=began,
            seconds=round(time.monotonic() - started, 3),
            evidence=run.path,
        )

    return so_far


def _all(turns: Sequence[Turn], taken: Sequence[Measurement], ended: str) -> list[Measurement]:
    """One measurement a turn: none that was planned is left out."""
    rest = turns[len(taken) :]
    return [*taken, *(Measurement(turn, MeasurementOutcome.NOT_TAKEN, why=ended) for turn in rest)]


def _emulators(bench: Workbench) -> dict[str, Emulator]:
    """The canary, and what the lab runs if that is another."""
    own = bench.emulator
    if own is not None and own.name == _CANARY:
        return {_CANARY: own}
    canary = emulators.emulator(_CANARY, bench.place())
    return {_CANARY: canary} | ({own.name: own} if own is not None else {})


def _absent(bench: Workbench, found: Mapping[str, Emulator]) -> dict[str, str]:
    """Bring their images into L1's Docker, as far as they are not there; of each that cannot be, why."""
    steps, why = bench.session.steps, {}
    for name, emulator in found.items():
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

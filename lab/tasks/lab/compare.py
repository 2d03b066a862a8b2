"""lab.compare: why one wants nested KVM, in seconds: L2 with it, without, and of ARM, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, ExitCode, InterruptedByUser, LabError, UsageError
from lab.documents.measured import MeasurementEntry
from lab.emulators.container import available_mib
from lab.emulators.protocol import Emulator
from lab.engines.protocol import State
from lab.experiments import measuring, turns
from lab.experiments.comparison import Comparison
from lab.experiments.measuring import ARM, TITLES, TimedBoot
from lab.images.canary_recipe import EMULATED_ARM_MIB, EMULATED_ARM_NEEDS
from lab.records.evidence import Run
from lab.workflow.selection import CANARY
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

ARM_BOOT = TimedBoot(CANARY, ARM)


def compare(session: Session, name: str, runs: int = 3, seed: int = 0, arm: bool = True) -> Reply:
    """`runs` boots of L2 by each route, for the canary and for the lab's own emulator if it is another.

    With `arm` also of the canary whose L2 is an ARM machine, emulated, where L1 is of x86. What was measured
    is kept whichever way it ends. The exit code is INCONCLUSIVE unless every emulator has the ratio of x86
    without KVM over nested KVM.
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
            result = _measure(bench, run, runs, turns.seed_of(seed), arm)
        finally:
            bench.close()
    code = ExitCode.DONE if result.complete else ExitCode.INCONCLUSIVE
    return Reply(result.document.as_json(), result.show, code)


def _measure(bench: Workbench, run: Run, runs: int, seed: int, arm: bool) -> Comparison:
    """What the measurements are of is asked once, before the first."""
    bench.guest.open(Deadline.after(bench.session.settings.deadlines.ssh))
    compared = _emulators(bench)
    boots = {
        TimedBoot(name, route): emulator for name, emulator in compared.items() for route in measuring.PAIR
    }
    machine = bench.guest.run(["uname", "-m"]).out.strip()
    why_no_arm = measuring.why_no_arm(machine) if arm else "not asked for (--no-arm)"
    if not why_no_arm:
        boots[ARM_BOOT] = bench.session.factories.arm_canary(bench.place())
    record, engine = bench.record(), bench.engine.facts()
    boot_id = bench.guest.read("/proc/sys/kernel/random/boot_id").strip()
    known = partial(
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
        arm=why_no_arm,
    )

    def series(entries: Sequence[MeasurementEntry], **common: Any) -> Comparison:
        arm_image = boots[ARM_BOOT].image_id() if ARM_BOOT in boots else ""
        return known(entries, arm_image=arm_image, **common)

    planned = turns.plan(list(boots), runs, seed)
    return turns.conduct(
        run,
        planned,
        lambda: measuring.measured(bench, planned, boots, _absent(bench, boots)),
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


def _absent(bench: Workbench, boots: Mapping[TimedBoot, Emulator]) -> dict[TimedBoot, str]:
    """Bring their images into L1's Docker, as far as they are not there; of each that cannot be, why."""
    why: dict[TimedBoot, str] = {}
    for first in boots:
        if first.route not in (measuring.KVM, ARM):
            continue  # the same image as with KVM
        mine = [first] if first == ARM_BOOT else [boot for boot in boots if boots[boot] is boots[first]]
        try:
            _bring(bench, first, boots[first])
        except InterruptedByUser:
            raise
        except LabError as error:
            why |= dict.fromkeys(mine, error.what)
    return why


def _bring(bench: Workbench, boot: TimedBoot, emulator: Emulator) -> None:
    """Have the image of what is timed in L1's Docker. Raises LabError, BlockedError without room for it."""
    steps = bench.session.steps
    name = f"{boot.emulator}, {TITLES[ARM]}" if boot == ARM_BOOT else boot.emulator
    with steps.step("emulator.prepare", name) as step:
        if boot == ARM_BOOT:
            step.note(EMULATED_ARM_NEEDS)
        emulator.prepare(step)
    if boot == ARM_BOOT:
        left = available_mib(bench.guest)
        if left is not None and left < EMULATED_ARM_MIB:
            raise BlockedError(
                f"out of memory: an emulated ARM L2 needs {EMULATED_ARM_MIB} MiB, and {left} MiB of the VM's "
                "is available"
            )
    with steps.step("emulator.load", name) as step:
        emulator.load(bench.guest, step)

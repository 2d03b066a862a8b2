"""Timing the same boot of L2 with KVM, without, and as an ARM machine: in random order, each recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError
from lab.documents.measured import MeasurementEntry, MeasurementOutcome, Route
from lab.emulators.protocol import Emulator
from lab.engines.protocol import State
from lab.experiments.turns import Turn
from lab.workflow.workbench import Workbench

Acceleration = Literal["kvm", "tcg"]

KVM: Route = "nested-kvm"
TCG: Route = "no-acceleration"
ARM: Route = "arm"
TITLES: dict[str, str] = {KVM: "nested KVM", TCG: "no acceleration", ARM: "ARM image"}
_ACCELERATION: dict[Route, Acceleration] = {KVM: "kvm", TCG: "tcg", ARM: "tcg"}
PAIR = (KVM, TCG)
"""The ways to run L2 that can be timed of every emulator."""
_OUTCOMES = {DeadlineError: MeasurementOutcome.TIMEOUT, BlockedError: MeasurementOutcome.BLOCKED}


class TimedBoot(NamedTuple):
    """What is timed: a boot of this emulator's L2 by this route."""

    emulator: str
    route: Route


def entry(
    turn: Turn[TimedBoot],
    outcome: MeasurementOutcome,
    *,
    seconds: float | None = None,
    waited: float = 0.0,
    why: str = "",
) -> MeasurementEntry:
    """What came of a turn, as lab.compare/1 has it."""
    return MeasurementEntry(
        number=turn.number,
        round=turn.round,
        **turn.cell._asdict(),
        outcome=outcome,
        seconds=seconds,
        waited=waited,
        why=why,
    )


def not_taken(turn: Turn[TimedBoot], why: str) -> MeasurementEntry:
    """The entry of a turn whose boot was not begun."""
    return entry(turn, MeasurementOutcome.NOT_TAKEN, why=why)


def measured(
    bench: Workbench,
    turns: Sequence[Turn[TimedBoot]],
    emulators: Mapping[TimedBoot, Emulator],
    absent: Mapping[TimedBoot, str],
) -> Iterator[MeasurementEntry]:
    """Take the turns one after the other; none is left out, whatever comes of it.

    `emulators` has for each boot what boots it, `absent` says of a boot why it cannot be tried. Raises
    InterruptedByUser.
    """
    gone = ""
    for turn in turns:
        check_cancelled()
        if gone:
            yield not_taken(turn, gone)
        elif why := absent.get(turn.cell, ""):
            yield entry(turn, MeasurementOutcome.BLOCKED, why=why)
        else:
            taken = _take(bench, turn, len(turns), emulators[turn.cell])
            if taken.outcome is not MeasurementOutcome.MEASURED:
                gone = _gone(bench)
            yield taken


def _take(bench: Workbench, turn: Turn[TimedBoot], of: int, emulator: Emulator) -> MeasurementEntry:
    what = f"{turn.cell.emulator}, {TITLES[turn.cell.route]}"
    started = time.monotonic()
    try:
        with bench.session.steps.step("compare.boot", f"{turn.number} of {of}: {what}") as step:
            acceleration = _ACCELERATION[turn.cell.route]
            seconds = emulator.time_boot(bench.guest, acceleration, _deadline(bench, emulator))
            step.result = f"{what}: {seconds:.1f} s"
    except InterruptedByUser:
        raise
    except LabError as error:
        check_cancelled()  # what an interruption broke did not fail by itself
        kinds = (kind for family, kind in _OUTCOMES.items() if isinstance(error, family))
        return entry(turn, next(kinds, MeasurementOutcome.FAILED), waited=_since(started), why=error.what)
    return entry(turn, MeasurementOutcome.MEASURED, seconds=seconds, waited=_since(started))


def _deadline(bench: Workbench, emulator: Emulator) -> Deadline:
    deadlines = bench.session.settings.deadlines
    return Deadline.after(deadlines.android_shadow if emulator.android else deadlines.nested_boot)


def _gone(bench: Workbench) -> str:
    """Why nothing more can be measured; empty while the VM runs."""
    try:
        state = bench.machine_state()
    except LabError as error:
        return error.what
    return "" if state is State.RUNNING else f"the VM is {state}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def why_no_arm(machine: str) -> str:
    """Why no ARM machine is emulated in an L1 whose `uname -m` is `machine`; empty where it is."""
    if machine == "x86_64":
        return ""
    if machine in ("aarch64", "arm64"):
        return f"not measured: the VM is an ARM machine itself ({machine}), so nested KVM runs the ARM image"
    return f"not measured: lab has the ARM image for x86_64 alone, and the VM is {machine}"

"""Timing boots of L2 that are alike but for what runs them: in random order, each one recorded."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError
from lab.documents.measured import MeasurementOutcome
from lab.emulators.protocol import Emulator
from lab.engines.protocol import State
from lab.host.facts import HostFacts
from lab.workflow.workbench import Workbench

Acceleration = Literal["kvm", "tcg"]

KVM, TCG, ARM = "nested-kvm", "no-acceleration", "arm"
TITLES = {KVM: "nested KVM", TCG: "no acceleration", ARM: "ARM image"}
_ACCELERATION: dict[str, Acceleration] = {KVM: "kvm", TCG: "tcg"}
ROUTES = tuple(_ACCELERATION)
"""The ways to run L2 that can be timed on any lab that is up."""

AGAIN = "what was measured is kept in the evidence; the same command measures anew, from the beginning"
"""What is said when a measurement is interrupted."""


@dataclass(frozen=True)
class Turn:
    """One planned measurement. `number` is its place in the order, from 1."""

    number: int
    round: int
    emulator: str
    route: str


@dataclass(frozen=True)
class Measurement:
    turn: Turn
    outcome: MeasurementOutcome
    seconds: float | None = None
    """From the launch of L2's monitor to adbd listening in it, on L1's clock; only when measured."""
    waited: float = 0.0
    """How long the whole attempt took, as seen from here."""
    why: str = ""
    """What went wrong; empty when nothing did."""


def plan(emulators: Sequence[str], runs: int, seed: int) -> list[Turn]:
    """`runs` rounds, each of them every emulator by every route once, in an order of its own.

    A slow drift of the machine then falls on all of them alike.
    """
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    turns: list[Turn] = []
    for number in range(1, runs + 1):
        once = [(emulator, route) for emulator in emulators for route in ROUTES]
        chance.shuffle(once)
        turns += [Turn(len(turns) + place, number, *pair) for place, pair in enumerate(once, 1)]
    return turns


def measured(
    bench: Workbench, turns: Sequence[Turn], emulators: Mapping[str, Emulator], absent: Mapping[str, str]
) -> Iterator[Measurement]:
    """Take the turns one after the other; none is left out, whatever comes of it.

    `absent` says of an emulator why it cannot be tried. Raises InterruptedByUser.
    """
    gone = ""
    for turn in turns:
        check_cancelled()
        if gone:
            yield Measurement(turn, MeasurementOutcome.NOT_TAKEN, why=gone)
        elif turn.emulator in absent:
            yield Measurement(turn, MeasurementOutcome.BLOCKED, why=absent[turn.emulator])
        else:
            found = _take(bench, turn, len(turns), emulators[turn.emulator])
            if found.outcome is not MeasurementOutcome.MEASURED:
                gone = _gone(bench)
            yield found


def _take(bench: Workbench, turn: Turn, of: int, emulator: Emulator) -> Measurement:
    what = f"{turn.emulator}, {TITLES[turn.route]}"
    started = time.monotonic()
    try:
        with bench.session.steps.step("compare.boot", f"{turn.number} of {of}: {what}") as step:
            seconds = emulator.time_boot(bench.guest, _ACCELERATION[turn.route], _deadline(bench, emulator))
            step.result = f"{what}: {seconds:.1f} s"
    except InterruptedByUser:
        raise
    except LabError as error:
        check_cancelled()  # what an interruption broke did not fail by itself
        kinds = {DeadlineError: MeasurementOutcome.TIMEOUT, BlockedError: MeasurementOutcome.BLOCKED}
        kind = next(
            (kind for family, kind in kinds.items() if isinstance(error, family)), MeasurementOutcome.FAILED
        )
        return Measurement(turn, kind, waited=_since(started), why=error.what)
    return Measurement(turn, MeasurementOutcome.MEASURED, seconds, _since(started))


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


def arm(host: HostFacts) -> str:
    """Why the ARM route was not measured on this host, in one sentence."""
    if host.arch.lower() in ("arm64", "aarch64"):
        return (
            f"not measured: this host ({host.arch}) could run an ARM image at its own speed, "
            "and lab has images for x86 only"
        )
    return (
        f"not possible here: an ARM image runs at a processor's own speed on ARM hosts only (Apple silicon, "
        f"Linux on arm64), and this one is {host.arch}"
    )

"""Which of two settings makes /dev/kvm work in L1: paravirtualization, or nesting? Plan and data.

What was asked for, what the engine accepted and what reached the guest are three things, and kept
apart: lab.theory.conclusion draws its rules from the last alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lab.ladder.rungs.guest import KVM_SIGNATURE
from lab.probes.kvm import CpuFacts

Paravirt = Literal["kvm", "none", "default"]
PARAVIRT: tuple[Paravirt, ...] = ("kvm", "none", "default")


@dataclass(frozen=True)
class Asked:
    """One cell of the experiment: what the engine is asked for."""

    paravirt: Paravirt
    nested: bool

    def __str__(self) -> str:
        return f"paravirt {self.paravirt}, nested {'on' if self.nested else 'off'}"


CELLS: tuple[Asked, ...] = tuple(Asked(paravirt, nested) for nested in (True, False) for paravirt in PARAVIRT)


@dataclass(frozen=True)
class PlannedRun:
    """One planned run of a cell. `number` is its place in the order, from 1."""

    number: int
    round: int
    asked: Asked


@dataclass(frozen=True)
class Delivered:
    """What reached the guest, by its own word. `paravirt` is None when it is neither there nor absent.

    It is so where half of it is there, and where the signature could not be read.
    """

    paravirt: bool | None
    """KVM's interface: its CPUID signature, and kvm-clock on offer."""
    nested: bool
    """vmx or svm among the cpu flags."""
    signature: str
    clocksources: tuple[str, ...]
    extensions: tuple[str, ...]

    @property
    def words(self) -> str:
        nested = " and ".join(self.extensions) or "no vmx or svm"
        paravirt = {True: "KVM interface", False: "no KVM interface", None: "half of KVM's interface"}
        return f"{nested}, {paravirt[self.paravirt]}"


class TrialOutcome(StrEnum):
    OBSERVED = "observed"
    BLOCKED = "blocked"
    """The engine refuses or does not take the setting, or something is absent."""
    INCONCLUSIVE = "inconclusive"
    """lab could not find out."""
    NOT_TAKEN = "not taken"
    """Planned, and the run ended before its turn."""


@dataclass(frozen=True)
class TurnResult:
    """What came of one turn. `worked`: the tiny guest ran under L1's /dev/kvm; None when not observed."""

    turn: PlannedRun
    outcome: TrialOutcome
    worked: bool | None = None
    delivered: Delivered | None = None
    accepted: Mapping[str, str] | None = None
    """The settings as read back from the engine."""
    why: str = ""
    """What was observed of /dev/kvm, or why nothing was."""
    seconds: float = 0.0

    @property
    def told(self) -> str:
        """In one line."""
        if self.delivered is None or self.worked is None:
            return f"{self.outcome}: {self.why}"
        return f"/dev/kvm {'works' if self.worked else 'does not work'} ({self.delivered.words})"

    def __post_init__(self) -> None:
        if (self.outcome is TrialOutcome.OBSERVED) != (
            self.worked is not None and self.delivered is not None
        ):
            raise ValueError(
                "a trial is observed when both its settings and /dev/kvm were seen, and only then"
            )


def plan(runs: int, seed: int) -> list[PlannedRun]:
    """`runs` rounds, each of them every cell once, in an order of its own."""
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    turns: list[PlannedRun] = []
    for number in range(1, runs + 1):
        once = list(CELLS)
        chance.shuffle(once)
        turns += [PlannedRun(len(turns) + place, number, asked) for place, asked in enumerate(once, 1)]
    return turns


def delivered(facts: CpuFacts) -> Delivered:
    """What L1 says it got."""
    signature = facts.cpu.hypervisor or ""
    whole = {signature == KVM_SIGNATURE, "kvm-clock" in facts.clocksources}
    known = facts.cpu.hypervisor is not None and len(whole) == 1
    extensions = tuple(flag for flag in ("vmx", "svm") if flag in facts.cpu.flags)
    return Delivered(
        paravirt=whole.pop() if known else None,
        nested=bool(extensions),
        signature=signature,
        clocksources=tuple(facts.clocksources),
        extensions=extensions,
    )

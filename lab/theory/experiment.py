"""Which of two settings makes /dev/kvm work in L1: paravirtualization, or nesting? The data.

What was asked for, what the engine accepted and what reached the guest are three things, and kept
apart: lab.theory.conclusion draws its rules from the last alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from lab.ladder.rungs.guest import KVM_SIGNATURE
from lab.model.document import GIVEN, Having, JsonPart, MemberRule, Ordinal, Seconds, Text
from lab.probes.kvm import CpuFacts

Paravirt = Literal["kvm", "none", "default"]
PARAVIRT: tuple[Paravirt, ...] = ("kvm", "none", "default")


class AskedCell(JsonPart):
    """One cell of the experiment: what the engine is asked for"""

    paravirt: Paravirt
    nested: bool

    def __str__(self) -> str:
        return f"paravirt {self.paravirt}, nested {'on' if self.nested else 'off'}"


CELLS: tuple[AskedCell, ...] = tuple(
    AskedCell(paravirt=paravirt, nested=nested) for nested in (True, False) for paravirt in PARAVIRT
)


class DeliveredEntry(JsonPart):
    """What reached the guest, by its own word"""

    paravirt: bool | None
    """KVM's signature and kvm-clock on offer; null when only one of them is, or the signature is not known"""
    nested: bool
    """vmx or svm among the cpu flags"""
    signature: str
    clocksources: tuple[str, ...]
    extensions: tuple[Literal["vmx", "svm"], ...]

    @property
    def words(self) -> str:
        """In a phrase: `svm, KVM interface`."""
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


class TrialEntry(JsonPart):
    """What came of one turn"""

    number: Ordinal
    round: Ordinal
    asked: AskedCell
    accepted: (
        Annotated[dict[str, str], Having("cpus", "memory_mib", "nested", "paravirt", "acceleration")] | None
    )
    """the settings as read back from the engine"""
    delivered: DeliveredEntry | None
    """what reached the guest, by its own word"""
    worked: bool | None
    """a tiny guest ran to its halt under the VM's /dev/kvm; null when not observed"""
    outcome: TrialOutcome
    why: Text
    """what was observed of /dev/kvm, or why nothing was"""
    seconds: Seconds

    rules = (MemberRule({"outcome": "observed"}, {"worked": GIVEN, "delivered": GIVEN}, {"worked": None}),)

    @property
    def result(self) -> str:
        """In one line."""
        if self.delivered is None or self.worked is None:
            return f"{self.outcome}: {self.why}"
        return f"/dev/kvm {'works' if self.worked else 'does not work'} ({self.delivered.words})"


def trial(
    number: int, round_: int, asked: AskedCell, outcome: TrialOutcome, why: str, **observed: Any
) -> TrialEntry:
    """What came of the turn `number` of the order; `observed` are the other members, None unless given."""
    unseen = {"accepted": None, "delivered": None, "worked": None, "seconds": 0.0}
    members = {"number": number, "round": round_, "asked": asked, "outcome": outcome, "why": why}
    return TrialEntry(**unseen | members | observed)


def delivered(facts: CpuFacts) -> DeliveredEntry:
    """What L1 says it got."""
    signature = facts.cpu.hypervisor or ""
    whole = {signature == KVM_SIGNATURE, "kvm-clock" in facts.clocksources}
    known = facts.cpu.hypervisor is not None and len(whole) == 1
    extensions = tuple(flag for flag in ("vmx", "svm") if flag in facts.cpu.flags)
    return DeliveredEntry(
        paravirt=whole.pop() if known else None,
        nested=bool(extensions),
        signature=signature,
        clocksources=tuple(facts.clocksources),
        extensions=extensions,
    )

"""A climb as a document: lab.validation/1, and what other documents take of it."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Any, Literal

from pydantic import Field

from lab.ladder.rungs import LADDER
from lab.model.document import (
    FILLED,
    GIVEN,
    JsonDocument,
    JsonPart,
    Limited,
    MemberRule,
    Moment,
    OneOf,
    Seconds,
    Text,
)
from lab.model.domain import Claim, Nesting, Status, Verdict

RungName = Annotated[str, OneOf(LADDER.names)]
RungStatus = Literal[Status.PASSED, Status.FAILED, Status.BLOCKED, Status.SKIPPED]
"""An inconclusive rung is a failed one with `inconclusive`: lab.model.domain.Outcome.row."""


class HostEntry(JsonPart):
    system: Text
    """linux, macos, or another system's name"""
    os: Text
    kernel: str
    cpu: str
    """the processor's model"""
    pc: Text = Field(default="", exclude_if=not_)
    """the emulated PC that this host is; absent where it is none, and in older documents"""
    id: Text = Field(default="", exclude_if=not_)
    """by which this host is told from others; absent in older documents"""


class CellEntry(JsonPart):
    """The combination a verdict holds for"""

    host: HostEntry
    engine: Text
    engine_version: str
    """empty when the engine cannot be asked"""
    acceleration: str
    """how L1's instructions run: kvm and hvf are hardware, tcg is emulation"""
    nesting: Nesting
    """what provides L1's virtualization extensions"""
    emulated: bool | None
    """true when any processor in the chain is emulated in software, null when nothing shows that they are
    real"""
    paravirt: str
    image: str
    """the VM image's id, empty when none was chosen"""
    emulator: str
    emulator_image: str
    """the container image's id, empty when none"""
    android: bool
    """whether the emulator is Android"""
    architecture: Text = Field(default="", exclude_if=not_)
    """L1's processor where it is no x86, such as aarch64; absent for x86, and in older documents"""
    transport: str = Field(default="", exclude_if=not_)
    """how lab spoke to the engine, and why so; absent where there is one way only, and in older documents"""

    rules = (
        MemberRule({"nesting": Nesting.EMULATED.value}, {"emulated": True}),
        MemberRule({"host.pc": FILLED}, {"emulated": True}),
    )


class RungEntry(JsonPart):
    """What came of one rung"""

    rung: RungName
    status: RungStatus
    expected: str
    observed: str
    seconds: Seconds
    evidence: tuple[str, ...]
    """files of the evidence folder"""
    hint: str
    blocked_by: RungName | None
    """the rung below that is at fault"""
    inconclusive: bool
    """failed for want of an answer (a timeout, an error of lab's own), not against evidence"""

    rules = (
        MemberRule({"status": Status.PASSED.value}, {"observed": FILLED}),
        MemberRule({"inconclusive": True}, {"status": Status.FAILED.value}),
        MemberRule({"blocked_by": GIVEN}, {"status": Status.BLOCKED.value}),
    )


RungEntries = Annotated[tuple[RungEntry, ...], Limited(max_length=len(LADDER.names))]


class ClaimEntry(JsonPart):
    verdict: Verdict
    reason: Text
    rungs: tuple[RungName, ...]
    """the rungs the verdict rests on"""

    rules = (MemberRule({"verdict": (Verdict.CONFIRMED.value, Verdict.REFUTED.value)}, {"rungs": FILLED}),)


class ClaimEntries(JsonPart):
    nesting: ClaimEntry
    android: ClaimEntry
    theory: ClaimEntry


class ClimbedLab(JsonPart):
    name: Text
    uuid: Text


class ClimbDocument(JsonDocument):
    """What lab.validation/1 and lab.up/1 have in common."""

    lab: ClimbedLab
    cell: CellEntry
    rungs: RungEntries
    """lowest first; fewer than all when the run was cut short"""
    claims: ClaimEntries
    claim: Claim
    """the claim whose verdict is this document's, and the exit code's"""
    verdict: Verdict
    reason: Text
    started: Moment
    ended: Moment
    seconds: Seconds
    evidence: str | None
    """the evidence folder"""
    facts: dict[str, Any]
    """anything measured on the way, by name"""
    lab_version: Text

    rules = tuple(
        MemberRule(
            {"claim": claim.value, "verdict": verdict.value}, {f"claims.{claim}.verdict": verdict.value}
        )
        for claim in Claim
        for verdict in Verdict
    )


class Validation(ClimbDocument):
    """What lab.validate found: rungs, and a verdict on each claim"""

    tag = "lab.validation/1"

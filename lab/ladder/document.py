"""A climb as a document: lab.validation/1, and what other documents take of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lab.document import FILLED, GIVEN, JsonDocument, JsonPart, Limited, Moment, OneOf, Rule, Seconds, Text
from lab.ladder.model import NAMES, Claim, Nesting, Status, Verdict

RungName = Annotated[str, OneOf(NAMES)]


class HostEntry(JsonPart):
    system: Text
    """linux, macos, or another system's name"""
    os: Text
    kernel: str
    cpu: str
    """the processor's model"""


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
    transport: str = Field(default="", exclude_if=lambda value: not value)
    """how lab spoke to the engine, and why so; absent where there is one way only, and in older documents"""

    rules = (Rule({"nesting": Nesting.EMULATED.value}, {"emulated": True}),)


class RungEntry(JsonPart):
    """What came of one rung"""

    rung: RungName
    status: Status
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
        Rule({"status": Status.PASSED.value}, {"observed": FILLED}),
        Rule({"inconclusive": True}, {"status": Status.FAILED.value}),
        Rule({"blocked_by": GIVEN}, {"status": Status.BLOCKED.value}),
    )


class ClaimEntry(JsonPart):
    verdict: Verdict
    reason: Text
    rungs: tuple[RungName, ...]
    """the rungs the verdict rests on"""

    rules = (Rule({"verdict": (Verdict.CONFIRMED.value, Verdict.REFUTED.value)}, {"rungs": FILLED}),)


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
    rungs: Annotated[tuple[RungEntry, ...], Limited(max_length=len(NAMES))]
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
        Rule({"claim": claim.value, "verdict": verdict.value}, {f"claims.{claim}.verdict": verdict.value})
        for claim in Claim
        for verdict in Verdict
    )


class Validation(ClimbDocument):
    """What lab.validate found: rungs, and a verdict on each claim"""

    tag = "lab.validation/1"

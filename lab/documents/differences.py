"""What differs between two runs, as data: `lab.diff` prints it, and the report of a red run holds it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from lab.core.characters import printable
from lab.ladder.document import RungName
from lab.model.document import Count, JsonDocument, JsonPart, Moment, Ordinal, Text

Said = Annotated[str, AfterValidator(printable)]
"""What a guest, a log or a file said: printable whenever it is made, and not only when it is read."""
SaidText = Annotated[Text, AfterValidator(printable)]
Recorded = Literal["both", "before", "after", "neither"]
"""Which of the two sides has the record at all."""


class DiffSide(JsonPart):
    """One of the two runs"""

    name: SaidText
    """its evidence folder's name"""
    folder: SaidText
    lab: Said
    night: Ordinal | None
    """the night it was a run of, where it was asked for by that"""
    started: Moment | None
    claim: Said
    """empty when it came to no verdict"""
    verdict: Said
    """empty when it came to none"""
    reason: Said


class DiffChange(JsonPart):
    """One thing that differs"""

    what: SaidText
    before: Said | None
    """null: that side's record does not have it"""
    after: Said | None


class DiffPart(JsonPart):
    """All of one kind that could be compared"""

    part: Literal["claims", "settings", "cell", "host", "versions", "vm", "kvm", "packages"]
    """claims: their verdicts; settings: lab's own; vm: as the engine reads them back; kvm: its parameters in
    L1; packages: of L1"""
    recorded: Recorded
    source: SaidText
    """the file of the evidence folders that has it"""
    changes: tuple[DiffChange, ...]
    """empty where only one side, or none, recorded it: nothing is guessed"""
    same: Count
    """how many did not change"""


class DiffRung(JsonPart):
    """A rung that turned out differently, or said something else"""

    rung: RungName
    before: SaidText
    """passed, failed, inconclusive, blocked, skipped; or not looked at"""
    after: SaidText
    before_observed: Said
    after_observed: Said
    outcome: bool
    """whether what came of it changed, and not its words alone"""


class DiffLog(JsonPart):
    """The decisive lines of one log: those about virtualization, and those that tell of a failure"""

    file: SaidText
    recorded: Recorded
    gone: tuple[Said, ...]
    """lines only in the earlier one, without times"""
    new: tuple[Said, ...]
    """lines only in the later one"""
    left_out: Count
    """lines beyond those shown"""


class LabDiff(JsonDocument):
    """What differs between two runs"""

    tag = "lab.diff/1"

    before: DiffSide
    after: DiffSide
    headline: SaidText
    """what changed first on the ladder, and what changed beside it, in one sentence"""
    first: DiffRung | None
    """the lowest rung that turned out differently; null where none did, or a side left no rungs"""
    rungs: tuple[DiffRung, ...]
    """lowest first"""
    rungs_recorded: Recorded
    parts: tuple[DiffPart, ...]
    logs: tuple[DiffLog, ...]

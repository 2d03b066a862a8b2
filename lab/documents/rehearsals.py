"""What theory.rehearse prints."""

from __future__ import annotations

from typing import Annotated

from lab.documents.measured import TheoryExperiment
from lab.ladder.document import CellEntry, ClaimEntries, RungEntries
from lab.model.document import Count, JsonDocument, JsonPart, Limited, Moment, Ordinal, Seconds, Text
from lab.model.domain import Verdict


class RehearsedPc(JsonPart):
    cpu: Text
    """the processor by its short name"""
    emulator: Text
    version: Text
    processor: Text
    """the processor in the emulator's own word"""
    memory_mib: Ordinal
    image: Text
    """the id of its system disk's image"""
    trouble: Text | None
    """why it did not end by switching itself off; null where it did"""
    seconds: Seconds
    """from power-on, of this machine's time"""


class RehearsedTask(JsonPart):
    words: Annotated[tuple[str, ...], Limited(min_length=1)]
    """after bin/invoke"""
    status: Count | None
    """its exit code; null where it did not end"""
    error: str
    """the end of what it complained of"""


class TheoryRehearse(JsonDocument):
    """The theory's own cell on an emulated PC"""

    tag = "theory.rehearse/1"

    pc: RehearsedPc
    tasks: Annotated[tuple[RehearsedTask, ...], Limited(min_length=1)]
    """what lab did in the PC, in order"""
    cell: CellEntry | None
    """what the claims hold for; null where they are"""
    claims: ClaimEntries | None
    """judged anew from the rungs; null with --experiment, and where the PC's lab.up gave no answer that can
    be believed"""
    rungs: RungEntries
    """lowest first, their seconds those of the PC's own clock"""
    verdict: Verdict | None
    """that on nesting, by which the exit code goes; null with --experiment"""
    reason: Text
    experiment: TheoryExperiment | None
    """with --experiment, where the PC's lab gave an answer that can be believed"""
    shows: Text
    """what a result here says something of"""
    shows_not: Text
    """and what it says nothing of"""
    report: Text | None
    """the page of it; null where none was written"""
    started: Moment
    seconds: Seconds
    evidence: Text
    lab_version: Text

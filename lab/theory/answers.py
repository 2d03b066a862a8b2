"""What theory.explain and theory.matrix answer, as documents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from lab.core.characters import printable
from lab.ladder.document import RungName
from lab.model.document import Count, JsonDocument, JsonPart, Limited, Moment, Ordinal, Text
from lab.model.domain import Claim, Verdict
from lab.theory.knowledge import Grade, Outlook
from lab.theory.observed import Agreement
from lab.theory.situation import Engine, System, Vendor

Applicable = Literal[Outlook.CONFIRMED, Outlook.REFUTED, Outlook.BLOCKED, Outlook.UNKNOWN]
Sources = Annotated[tuple[Text, ...], Limited(min_length=1)]
Day = Annotated[str, Limited(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", json_schema_extra={"format": "date"})]


class Prediction(JsonPart):
    claim: Claim
    predicted: Outlook
    why: Annotated[str, AfterValidator(printable)]
    source: Annotated[str, AfterValidator(printable)]
    grade: Annotated[str, AfterValidator(printable)]
    """what kind of evidence it rests on"""


class FactEntry(JsonPart):
    id: Text
    where: Text
    """its conditions in words"""
    nesting: Applicable
    android: Applicable
    rung: RungName | None
    """where it is decided; null when every rung is expected to pass"""
    why: Text
    grade: Grade
    """what it rests on, docs/theory.md"""
    date: Day
    sources: Sources


class WayEntry(JsonPart):
    id: Text
    how: Text
    grade: Grade
    """what it rests on, docs/theory.md"""
    date: Day
    sources: Sources


class AskedHost(JsonPart):
    host: str | None
    """null: this host"""
    engine: str | None
    """null: each that could run there"""


class SituationEntry(JsonPart):
    """A host; null is not known"""

    described: Text
    system: System
    cpu: Vendor | None
    os_version: str
    """empty when not known"""
    generation: Ordinal | None
    """of an Apple M chip or an Intel Core i"""
    virtual: bool | None
    extensions: bool | None
    emulated: bool | None
    la57: bool | None
    hyperv: bool | None
    kvm: bool | None
    nested: bool | None
    distribution: str
    """of Linux, such as Debian; else, or when not known, empty"""
    kernel: str
    """Linux's release, as uname -r says it; else, or when not known, empty"""


class Outlooks(JsonPart):
    nesting: Applicable
    android: Applicable
    theory: Outlook


class ExpectedEngine(JsonPart):
    engine: Engine
    version: str
    """empty when not known"""
    driven: bool
    """whether lab can drive it"""
    available: bool | None
    """whether it can start a VM on this host; null when it was not looked at"""
    availability: str
    claims: Outlooks
    fact: FactEntry | None
    """what the prediction rests on; null when nothing is known"""
    why: Text
    open: tuple[FactEntry, ...]
    """what would decide instead, if what they ask for were known and so"""


class TheoryExplain(JsonDocument):
    """What lab expects of a host, engine by engine, and what would work there"""

    tag = "theory.explain/1"

    asked: AskedHost
    situation: SituationEntry
    """the host; null is not known"""
    in_short: Text
    """the answer in a sentence"""
    engines: tuple[ExpectedEngine, ...]
    ways: tuple[WayEntry, ...]
    """what would work on this host"""


class SeenVerdict(JsonPart):
    cell: Text
    """the cell in words"""
    claim: Claim
    verdict: Verdict
    predicted: Outlook
    comparison: Agreement
    when: Moment
    runs: Ordinal


class MatrixRow(JsonPart):
    fact: FactEntry | None
    """null: the cells of which nothing is known"""
    theory: Applicable | None
    """null off VirtualBox on macOS"""
    observed: tuple[SeenVerdict, ...]


class TheoryMatrix(JsonDocument):
    """All that is known of hosts and engines, with what was observed"""

    tag = "theory.matrix/1"

    rows: tuple[MatrixRow, ...]
    observations: Count
    contradictions: Count

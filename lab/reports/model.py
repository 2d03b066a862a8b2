"""What a report is made from: one run or several of one cell, and what is known beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from lab.core.characters import printable
from lab.ladder.facts import Facts
from lab.model.domain import Cell, Claim, Outcome, Verdict
from lab.reports.spans import Timeline
from lab.reports.text import plain
from lab.theory.knowledge import Outlook
from lab.theory.observed import cell_of
from lab.theory.repeats import Combined, combine

Text = Annotated[str, AfterValidator(printable)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prediction(_Part):
    """What was to be expected of a claim, by what is known (lab.theory)."""

    claim: Claim
    predicted: Outlook
    why: Text
    source: Text = ""
    grade: Text = ""
    """What kind of evidence it rests on."""


class Past(_Part):
    """One run of the history, or one night."""

    when: AwareDatetime
    verdicts: dict[Claim, Verdict]
    cell: Text
    """The cell in one phrase: a verdict flips for a reason when its cell changed."""
    nested_boot_seconds: Seconds | None = None
    note: Text = ""


class Measure(_Part):
    """One thing that was timed, n times."""

    name: Text
    seconds: tuple[Seconds, ...]
    note: Text = ""


class Compared(_Part):
    """`name` says what over what; `low` and `high` bound it where there was more than one pair."""

    name: Text
    ratio: Ratio
    n: int = Field(ge=1)
    low: Ratio | None = None
    high: Ratio | None = None


class Source(_Part):
    """The run that measured it, where that is not the reported one."""

    run: Text
    """Its evidence folder's name."""
    lab: Text
    when: AwareDatetime


class MeasuredComparison(_Part):
    measures: tuple[Measure, ...] = ()
    ratios: tuple[Compared, ...] = ()
    note: Text = ""
    source: Source | None = None


class AndroidStage(_Part):
    """A stage of Android's boot; `seconds` from the container's start, None when it was not reached."""

    name: Text
    seconds: Seconds | None = None


class CellTrials(_Part):
    """One cell of the experiment: settings asked for, and in how many runs /dev/kvm worked in L1."""

    paravirt: Text
    nested: bool
    runs: int = Field(ge=0)
    worked: int = Field(ge=0)
    note: Text = ""


class MeasuredExperiment(_Part):
    sentence: Text
    """What follows from the data."""
    trials: tuple[CellTrials, ...]
    seed: int | None = None
    source: Source | None = None


@dataclass(frozen=True)
class ReportedRun:
    """One climb and what it left behind."""

    document: Mapping[str, Any]
    """lab.validation/1; of lab.up/1 what both have."""
    folder: Path | None = None
    """Its evidence folder."""
    files: tuple[str, ...] = ()
    """The evidence, by name in `folder`."""
    steps: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        kept = {key: value for key, value in self.document.items() if key != "access"}
        object.__setattr__(self, "document", plain(kept | {"schema": "lab.validation/1"}))

    @cached_property
    def cell(self) -> Cell:
        return cell_of(self.document["cell"])

    @property
    def claim(self) -> Claim:
        return Claim(self.document["claim"])

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.document["verdict"])

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Rung to outcome, lowest first; a rung that was never reached has none."""
        return {row["rung"]: Outcome.of_row(row) for row in self.document["rungs"]}

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.document["started"])

    @cached_property
    def facts(self) -> Facts:
        """What was measured on the way."""
        return Facts.read(self.document["facts"])


@dataclass(frozen=True)
class ReportInput:
    """All a reporter may show. `runs` are of one cell and judged by one claim, oldest first."""

    runs: tuple[ReportedRun, ...]
    predictions: tuple[Prediction, ...] = ()
    history: tuple[Past, ...] = ()
    comparison: MeasuredComparison | None = None
    android: tuple[AndroidStage, ...] = ()
    """The stages of Android's boot in the last run."""
    experiment: MeasuredExperiment | None = None
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a report is of one run at least")
        first = self.runs[0]
        if any((run.cell, run.claim) != (first.cell, first.claim) for run in self.runs):
            raise ValueError("a report is of one cell and one claim: these runs differ")

    @property
    def last(self) -> ReportedRun:
        """The newest run: the one that is shown in full."""
        return self.runs[-1]

    @cached_property
    def combined(self) -> Combined:
        return combine(run.verdict for run in self.runs)

    @property
    def verdict(self) -> Verdict:
        return self.combined.verdict

    @property
    def reason(self) -> str:
        """The last run's where all agree."""
        combined = self.combined
        return str(self.last.document["reason"]) if len(combined.counts) == 1 else combined.reason

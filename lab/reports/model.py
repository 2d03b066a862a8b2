"""What a report is made from: one run or several of one cell, and what is known beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.documents.differences import LabDiff
from lab.documents.flakes import RungRateEntry
from lab.documents.reports import PastRun, ReportComparison, ReportExperiment, ReportStage
from lab.ladder.facts import Facts
from lab.model.domain import Cell, Claim, Outcome, Verdict
from lab.reports.spans import Timeline
from lab.reports.text import plain
from lab.theory.answers import Prediction
from lab.theory.observed import cell_of
from lab.theory.repeats import Combined, combine


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
    history: tuple[PastRun, ...] = ()
    comparison: ReportComparison | None = None
    android: tuple[ReportStage, ...] = ()
    """The stages of Android's boot in the last run."""
    experiment: ReportExperiment | None = None
    difference: LabDiff | None = None
    """Of a last run that did not confirm: what differs from the one that did last."""
    flakes: tuple[RungRateEntry, ...] = ()
    """Of a night: the rungs that passed and did not in its cell."""
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

"""A report as data, and the files of one."""

from __future__ import annotations

from typing import Annotated, Literal

from lab.ladder.document import Validation
from lab.model.document import Count, Factor, JsonDocument, JsonPart, Limited, Moment, Ordinal, Seconds, Text
from lab.model.domain import Claim, Verdict
from lab.theory.knowledge import Outlook
from lab.theory.observed import Agreement


class ReportCount(JsonPart):
    verdict: Verdict
    runs: Ordinal


class ReportStep(JsonPart):
    step: int
    parent: int
    """the step within which it was begun, 0 at the top"""
    name: str
    start: Seconds
    """seconds since the run's first step began"""
    seconds: Seconds
    state: Literal["finished", "failed", "cut short"]
    text: str


class ReportRun(JsonPart):
    validation: Validation
    folder: Text | None
    """the evidence folder"""
    files: tuple[str, ...]
    """the evidence, relative to folder"""
    steps: tuple[ReportStep, ...]
    clock_jumped: bool
    """the host's clock was set during the run: starts are uncertain"""


class ReportPrediction(JsonPart):
    claim: Claim
    predicted: Outlook
    why: str
    source: str
    grade: str
    """what kind of evidence it rests on"""
    observed: Verdict
    came: Agreement
    """answers: nobody knew, and now it was seen"""


class PastClaim(JsonPart):
    claim: Claim
    verdict: Verdict


class PastRun(JsonPart):
    when: Moment
    cell: str
    nested_boot_seconds: Seconds | None
    note: str
    verdicts: tuple[PastClaim, ...]


class ReportMeasure(JsonPart):
    name: str
    seconds: tuple[Seconds, ...]
    note: str


class ReportRatio(JsonPart):
    name: str
    ratio: Factor
    n: Ordinal
    low: Factor | None
    high: Factor | None


class ReportSource(JsonPart):
    """The run that measured it, where that is not the reported one"""

    run: str
    """its evidence folder's name"""
    lab: str
    when: Annotated[str, Limited(json_schema_extra={"format": "date-time"})]


class ReportComparison(JsonPart):
    measures: tuple[ReportMeasure, ...]
    ratios: tuple[ReportRatio, ...]
    note: str
    source: ReportSource | None


class ReportStage(JsonPart):
    name: str
    seconds: Seconds | None
    """from the container's start; null when it was not reached"""


class ReportTrial(JsonPart):
    paravirt: str
    nested: bool
    runs: Count
    worked: Count
    """runs in which /dev/kvm worked in L1"""
    note: str


class ReportExperiment(JsonPart):
    sentence: str
    """what follows from the data"""
    trials: tuple[ReportTrial, ...]
    seed: int | None
    source: ReportSource | None


class LabReport(JsonDocument):
    """One run of a cell, or several, with what is known beside them"""

    tag = "lab.report/1"

    claim: Claim
    verdict: Verdict
    """of all runs together: inconclusive where they differ"""
    reason: Text
    headline: Text
    """the verdict in one sentence with its cell"""
    cell: Text
    """the cell in one phrase"""
    counts: Annotated[tuple[ReportCount, ...], Limited(min_length=1)]
    """how many runs came to each verdict"""
    not_proven: tuple[Text, ...]
    runs: Annotated[tuple[ReportRun, ...], Limited(min_length=1)]
    """oldest first"""
    predictions: tuple[ReportPrediction, ...]
    history: tuple[PastRun, ...]
    """oldest first"""
    comparison: ReportComparison | None
    android: tuple[ReportStage, ...]
    """the stages of Android's boot in the last run"""
    experiment: ReportExperiment | None
    written: Moment
    lab_version: Text


class ReportFile(JsonPart):
    format: Text
    path: Text


class LabReportFiles(JsonDocument):
    """The reports that lab.report wrote"""

    tag = "lab.report-files/1"

    lab: Text
    runs: Annotated[tuple[Text, ...], Limited(min_length=1)]
    """the evidence folders of the runs, oldest first"""
    claim: Claim
    verdict: Verdict
    reason: Text
    files: tuple[ReportFile, ...]

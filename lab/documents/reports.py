"""A report as data, and the files of one.

What is shown beside the runs may come from damaged files: its members are checked, and made printable,
whenever they are made and not only when they are read.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from lab.core.characters import printable
from lab.documents.differences import LabDiff
from lab.documents.flakes import RungRateEntry
from lab.ladder.document import Validation
from lab.model.document import MOMENT, JsonDocument, JsonPart, Limited, Moment, Ordinal, Seconds, Text
from lab.model.domain import Claim, Verdict
from lab.theory.answers import Prediction
from lab.theory.observed import Agreement

Words = Annotated[str, AfterValidator(printable)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Times = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Runs = Annotated[int, Field(ge=0)]


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


class ReportPrediction(Prediction):
    observed: Verdict
    came: Agreement
    """answers: nobody knew, and now it was seen"""


class PastClaim(JsonPart):
    claim: Claim
    verdict: Verdict


class PastRun(JsonPart):
    when: Annotated[AwareDatetime, Field(json_schema_extra={"pattern": MOMENT})]
    cell: Words
    nested_boot_seconds: Duration | None
    note: Words
    verdicts: tuple[PastClaim, ...]

    def verdict_on(self, claim: Claim) -> Verdict | None:
        """Its verdict on that claim; None where it was not looked at."""
        return next((each.verdict for each in self.verdicts if each.claim is claim), None)


class ReportMeasure(JsonPart):
    name: Words
    seconds: tuple[Duration, ...]
    note: Words


class ReportRatio(JsonPart):
    name: Words
    """what over what"""
    ratio: Times
    n: Annotated[int, Field(ge=1)]
    low: Times | None
    """the ratio's bounds, where there was more than one pair"""
    high: Times | None


class ReportSource(JsonPart):
    """The run that measured it, where that is not the reported one"""

    run: Words
    """its evidence folder's name"""
    lab: Words
    when: AwareDatetime


class ReportComparison(JsonPart):
    measures: tuple[ReportMeasure, ...]
    ratios: tuple[ReportRatio, ...]
    note: Words
    source: ReportSource | None


class ReportStage(JsonPart):
    name: Words
    seconds: Duration | None
    """from the container's start; null when it was not reached"""


class ReportTrial(JsonPart):
    paravirt: Words
    nested: bool
    runs: Runs
    worked: Runs
    """runs in which /dev/kvm worked in L1"""
    note: Words


class ReportExperiment(JsonPart):
    sentence: Words
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
    difference: LabDiff | None = Field(default=None, exclude_if=not_)
    """of a run that did not confirm: what differs from the last one that did; absent where there is none"""
    flakes: tuple[RungRateEntry, ...] = Field(default=(), exclude_if=not_)
    """of a night: the rungs that passed and did not in its cell, over all its nights; absent without any"""


class LabRecording(JsonDocument):
    """A run's terminal, as lab.record wrote it"""

    tag = "lab.recording/1"

    lab: Text
    run: Text
    """its evidence folder's name"""
    path: Text
    """the file"""
    lines: Ordinal
    seconds: Seconds
    """that it takes to be seen"""
    real_seconds: Seconds
    """that the run's steps took"""


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

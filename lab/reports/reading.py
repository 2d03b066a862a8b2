"""A report's input from the evidence folders that runs left behind (lab.evidence)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab.core.errors import LabError, UsageError
from lab.core.files import read_json
from lab.documents.climbs import LabUp
from lab.documents.reports import (
    PastClaim,
    PastRun,
    ReportComparison,
    ReportMeasure,
    ReportRatio,
    ReportStage,
)
from lab.host.facts import HostFacts
from lab.ladder.document import Validation
from lab.ladder.report import describe
from lab.probes.kvm import own_module
from lab.reports import difference, measured, spans, writing
from lab.reports.model import ReportedRun, ReportInput
from lab.theory.answers import Prediction
from lab.theory.documents import predictions
from lab.theory.knowledge import Outlook, predict
from lab.theory.situation import Situation, of_cell, of_host


class RunFolder:
    """The evidence folder of a run that came to a verdict. It is read once, when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _raw(self) -> Any:
        """What is in validation.json; None without one. Raises LabError."""
        try:
            return read_json(self.path / "validation.json")
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """lab.validation/1. Raises UsageError where there is none, and LabError for a damaged one."""
        name, document = self.path.name, self._raw
        if document is None:
            raise UsageError(
                f"the run {name} came to no verdict",
                hint="`invoke lab.evidence` lists the runs with theirs",
            )
        if not isinstance(document, Mapping):
            raise LabError(f"validation.json of {name} is no JSON object")
        (LabUp if document.get("schema") == LabUp.tag else Validation).read(document)
        return document

    @property
    def subject(self) -> tuple[Any, Any] | None:
        """Its cell and claim as the document has them, which may be damaged elsewhere; None without both."""
        try:
            return self._raw["cell"], self._raw["claim"]
        except (LabError, KeyError, TypeError):
            return None

    @cached_property
    def run(self) -> ReportedRun:
        """The run with its steps and the names of its files. Raises as `document` does."""
        document, reports = self.document, writing.file_names()
        try:
            names = sorted(
                item.name for item in self.path.iterdir() if item.is_file() and item.name not in reports
            )
        except OSError as error:
            raise self._damaged(error) from error
        return ReportedRun(document, self.path, tuple(names), spans.read(self.path / "steps.jsonl"))

    def _damaged(self, error: Exception) -> LabError:
        return LabError(f"validation.json of {self.path.name} cannot be read: {error}")


def read(folders: Iterable[RunFolder], **known: Any) -> ReportInput:
    """The input for a report of the runs in `folders`, oldest first; `known` are its further members.

    Unless given, predictions are what is known of the cell; a comparison is what the runs themselves
    measured, else the newest lab.compare of their cell; the experiment is the newest of their cell; the last
    one's boot of Android is taken from its facts; and where it did not confirm, it is compared with the last
    run that did.
    Raises UsageError for a folder of a run that came to no verdict, and LabError for a damaged one.
    """
    runs = tuple(folder.run for folder in folders)
    last = runs[-1] if runs else None
    if last is not None:
        known.setdefault("predictions", _predictions(last))
        own = (comparison for run in reversed(runs) if (comparison := _comparison(run)))
        known.setdefault("comparison", next(own, None) or measured.comparison(last))
        known.setdefault("experiment", measured.experiment(last))
        known.setdefault("android", _stages(last))
        if last.verdict in difference.RED and last.folder:
            known.setdefault("difference", difference.since_last_good(last.folder))
    return ReportInput(runs, **known)


def history(folders: Iterable[RunFolder]) -> tuple[PastRun, ...]:
    """Every run in `folders`, oldest first, that came to a verdict; what cannot be read is left out."""
    rows = []
    for folder in folders:
        try:
            run = ReportedRun(folder.document)
        except LabError:
            continue
        verdicts = [
            PastClaim(claim=name, verdict=claim["verdict"]) for name, claim in run.document["claims"].items()
        ]
        boot = run.facts.nested_boot
        seconds = boot.seconds if boot is not None and boot.seconds >= 0 else None
        rows.append(
            PastRun(
                when=run.started,
                verdicts=verdicts,
                cell=describe(run.cell),
                nested_boot_seconds=seconds,
                note="",
            )
        )
    return tuple(rows)


def _predictions(run: ReportedRun) -> tuple[Prediction, ...]:
    """What theory.explain says of that engine on the run's host, which its evidence describes."""
    known = predictions(predict(of_cell(run.cell, _host(run))))
    return tuple(each for each in known if each.predicted is not Outlook.NOT_APPLICABLE)


def _host(run: ReportedRun) -> Situation | None:
    """The host as it was then; None where that was not kept."""
    try:
        host = HostFacts.from_dict(read_json((run.folder or Path()) / "host.json"))
    except (OSError, ValueError):
        return None
    modules = host.kvm.parameters if host.kvm else {}
    value = modules.get(f"{own_module(host.cpu.extensions)}.nested")
    nested = None if value is None else value in ("1", "Y")
    # Whether its KVM really ran is in the cell, where the engine was one that uses it.
    return of_host(host, None, nested)


def _comparison(run: ReportedRun) -> ReportComparison | None:
    """The pair of boots that `lab.validate --compare` measures; a boot may have given no figure."""
    boots = run.facts.nested_compare
    if boots is None:
        return None
    pair = {"with KVM": boots.with_kvm_seconds, "without KVM": boots.without_kvm_seconds}
    try:
        measures = tuple(
            ReportMeasure(name=f"L2's boot {name}", seconds=() if took is None else (took,), note="")
            for name, took in pair.items()
        )
        if boots.ratio is None:
            return ReportComparison(measures=measures, ratios=(), note=f"no ratio: {boots.why}", source=None)
        ratio = ReportRatio(
            name="without KVM over with it", ratio=boots.ratio, n=boots.n, low=None, high=None
        )
        return ReportComparison(measures=measures, ratios=(ratio,), note="", source=None)
    except ValidationError:
        return None


def _stages(run: ReportedRun) -> tuple[ReportStage, ...]:
    """The stages of Android's boot; none where they were not kept, or contradict themselves."""
    boot = run.facts.android_boot
    try:
        timeline = boot.timeline if boot is not None else []
        return tuple(ReportStage(name=stage.name, seconds=stage.seconds) for stage in timeline)
    except ValidationError:
        return ()

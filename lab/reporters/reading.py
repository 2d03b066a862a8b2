"""A report's input from the evidence folders that runs left behind (lab.evidence)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab.documents.climbs import LabUp
from lab.errors import LabError, UsageError
from lab.files import read_json
from lab.host.facts import HostFacts
from lab.ladder.document import Validation
from lab.ladder.report import describe
from lab.probes.kvm import own_module
from lab.reporters import measured, spans
from lab.reporters.model import Compared, Comparison, Measure, Past, Prediction, ReportInput, Run, Stage
from lab.theory.documents import predictions
from lab.theory.knowledge import Outlook, predict
from lab.theory.situation import Situation, of_cell, of_host

OWN = ("report.html", "report.json", "report.md", "junit.xml")
"""What reports are called: no evidence."""


def read(folders: Iterable[Path], **known: Any) -> ReportInput:
    """The input for a report of the runs in `folders`, oldest first; `known` are its further members.

    Unless given, predictions are what is known of the cell; a comparison is what the runs themselves
    measured, else the newest lab.compare of their cell; the experiment is the newest of their cell; and
    the last one's boot of Android is taken from its facts.
    Raises UsageError for a folder of a run that came to no verdict, and LabError for a damaged one.
    """
    runs = tuple(_run(folder) for folder in folders)
    last = runs[-1] if runs else None
    if last is not None:
        known.setdefault("predictions", _predictions(last))
        compared = (found for run in reversed(runs) if (found := _comparison(run)))
        known.setdefault("comparison", next(compared, None) or measured.comparison(last))
        known.setdefault("experiment", measured.experiment(last))
        known.setdefault("android", _stages(last))
    return ReportInput(runs, **known)


def history(folders: Iterable[Path]) -> tuple[Past, ...]:
    """Every run in `folders`, oldest first, that came to a verdict; what cannot be read is left out."""
    rows = []
    for folder in folders:
        try:
            run = _run(folder)
        except LabError:
            continue
        verdicts = {name: found["verdict"] for name, found in run.document["claims"].items()}
        boot = run.fact("nested.boot", "seconds")
        seconds = boot if isinstance(boot, int | float) and boot >= 0 else None
        rows.append(
            Past(when=run.started, verdicts=verdicts, cell=describe(run.cell), nested_boot_seconds=seconds)
        )
    return tuple(rows)


def _run(folder: Path) -> Run:
    try:
        document = read_json(folder / "validation.json")
        files = sorted(item.name for item in folder.iterdir() if item.is_file() and item.name not in OWN)
    except (OSError, ValueError) as error:
        raise LabError(f"validation.json of {folder.name} cannot be read: {error}") from error
    if document is None:
        raise UsageError(
            f"the run {folder.name} came to no verdict",
            hint="`invoke lab.evidence` lists the runs with theirs",
        )
    if not isinstance(document, Mapping):
        raise LabError(f"validation.json of {folder.name} is no JSON object")
    (LabUp if document.get("schema") == LabUp.tag else Validation).read(document)
    return Run(document, folder, tuple(files), spans.read(folder / "steps.jsonl"))


def _predictions(run: Run) -> tuple[Prediction, ...]:
    """What theory.explain says of that engine on the run's host, which its evidence describes."""
    said = predictions(predict(of_cell(run.cell, _host(run))))
    found = (Prediction.model_validate(one) for one in said)
    return tuple(one for one in found if one.predicted is not Outlook.NOT_APPLICABLE)


def _host(run: Run) -> Situation | None:
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


def _comparison(run: Run) -> Comparison | None:
    """The pair of boots that `lab.validate --compare` measures; a boot may have given no figure."""
    found = run.fact("nested.compare")
    try:
        pair = {"with KVM": found["with_kvm_seconds"], "without KVM": found["without_kvm_seconds"]}
        measures = tuple(
            Measure(name=f"L2's boot {name}", seconds=() if took is None else (took,))
            for name, took in pair.items()
        )
        if found["ratio"] is None:
            return Comparison(measures=measures, note=f"no ratio: {found['why']}")
        ratio = Compared(name="without KVM over with it", ratio=found["ratio"], n=found["n"])
        return Comparison(measures=measures, ratios=(ratio,))
    except (TypeError, KeyError, ValidationError):
        return None


def _stages(run: Run) -> tuple[Stage, ...]:
    """`{"name", "seconds"}` a stage, as android.boot records them."""
    found = run.fact("android.boot", "timeline")
    try:
        return tuple(Stage.model_validate(stage) for stage in found)
    except (TypeError, ValidationError):
        return ()

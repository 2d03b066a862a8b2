"""A report's input from the evidence folders that runs left behind (lab.evidence)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab import schema
from lab.errors import LabError, UsageError
from lab.files import read_json
from lab.ladder.report import describe
from lab.reporters import spans
from lab.reporters.model import Compared, Comparison, Measure, Past, Prediction, ReportInput, Run, Stage
from lab.theory.knowledge import Outlook, predict
from lab.theory.situation import of_cell

OWN = ("report.html", "report.json", "report.md", "junit.xml")
"""What reports are called: no evidence."""


def read(folders: Iterable[Path], **known: Any) -> ReportInput:
    """The input for a report of the runs in `folders`, oldest first; `known` are its further members.

    Unless given, predictions are what is known of the cell, and what the runs themselves measured (a
    comparison, the last one's boot of Android) is taken from their facts.
    Raises UsageError for a folder of a run that came to no verdict, and LabError for a damaged one.
    """
    runs = tuple(_run(folder) for folder in folders)
    last = runs[-1] if runs else None
    if last is not None:
        known.setdefault("predictions", _predictions(last))
        compared = (found for run in reversed(runs) if (found := _comparison(run)))
        known.setdefault("comparison", next(compared, None))
        known.setdefault("android", _stages(last))
    return ReportInput(runs, **known)


def history(folders: Iterable[Path]) -> tuple[Past, ...]:
    """Every run in `folders` that came to a verdict, oldest first; what cannot be read is left out."""
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
    return tuple(sorted(rows, key=lambda row: row.when))


def _run(folder: Path) -> Run:
    try:
        document = read_json(folder / "validation.json")
    except (OSError, json.JSONDecodeError) as error:
        raise LabError(f"validation.json of {folder.name} cannot be read: {error}") from error
    if document is None:
        raise UsageError(
            f"the run {folder.name} came to no verdict",
            hint="`invoke lab.evidence` lists the runs with theirs",
        )
    if not isinstance(document, Mapping):
        raise LabError(f"validation.json of {folder.name} is no JSON object")
    schema.validate(document)
    files = sorted(item.name for item in folder.iterdir() if item.is_file() and item.name not in OWN)
    return Run(document, folder, tuple(files), spans.read(folder / "steps.jsonl"))


def _predictions(run: Run) -> tuple[Prediction, ...]:
    expected = predict(of_cell(run.cell))
    fact = expected.fact
    return tuple(
        Prediction(
            claim=claim,
            predicted=outlook,
            why=fact.why if fact else "nothing is known of such a host with such an engine",
            source=", ".join(fact.sources) if fact else "",
            grade=fact.grade.value if fact else "",
        )
        for claim, outlook in expected.claims.items()
        if outlook is not Outlook.NOT_APPLICABLE
    )


def _comparison(run: Run) -> Comparison | None:
    """The pair of boots that `lab.validate --compare` measures."""
    found = run.fact("nested.compare")
    try:
        pair = {"with KVM": found["with_kvm_seconds"], "without KVM": found["without_kvm_seconds"]}
        return Comparison(
            measures=tuple(Measure(name=f"L2's boot {name}", seconds=(took,)) for name, took in pair.items()),
            ratios=(Compared(name="without KVM over with it", ratio=found["ratio"], n=found["n"]),),
        )
    except (TypeError, KeyError, ValidationError):
        return None


def _stages(run: Run) -> tuple[Stage, ...]:
    """`{"name", "seconds"}` a stage, as android.boot records them."""
    found = run.fact("android.boot", "timeline")
    try:
        return tuple(Stage.model_validate(stage) for stage in found)
    except (TypeError, ValidationError):
        return ()

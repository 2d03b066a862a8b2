"""What was measured of a cell beside its climbs: by lab.compare, and by theory.experiment.

Both leave a document of their own in an evidence folder (compare.json, experiment.json). It is shown
with a run of the same cell and no other: figures of another engine or image say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lab.core.errors import LabError
from lab.core.files import read_json
from lab.documents.measured import LabCompare, MeasuredPlace, TheoryExperiment
from lab.documents.reports import (
    ReportComparison,
    ReportExperiment,
    ReportMeasure,
    ReportRatio,
    ReportSource,
    ReportTrial,
)
from lab.model.domain import Cell
from lab.records import evidence
from lab.reports.model import ReportedRun

Read = TypeVar("Read", LabCompare, TheoryExperiment)

COMPARE, EXPERIMENT = "compare.json", "experiment.json"
PAGES = ("compare.html", "experiment.html")
"""What such a run shows by itself."""


def comparison(run: ReportedRun) -> ReportComparison | None:
    """The newest lab.compare of the run's cell on the lab of that name; None when there is none."""
    where = _where(run.cell) | {"nesting": run.cell.nesting.value}
    for folder, document in _newest(_beside(run, run.document["lab"]["name"]), COMPARE, LabCompare):
        images = {item.image for item in document.emulators}
        if _alike(document.where, where) and images >= {run.cell.emulator_image} - {""}:
            return _comparison(document, folder)
    return None


def experiment(run: ReportedRun) -> ReportExperiment | None:
    """The newest theory.experiment of the run's host, engine and VM image; None when there is none."""
    where = _where(run.cell)
    for folder, document in _newest(_beside(run), EXPERIMENT, TheoryExperiment):
        if _alike(document.where, where):
            return _experiment(document, folder)
    return None


def _beside(run: ReportedRun, lab: str | None = None) -> list[Path]:
    """The evidence folders of a lab, or of all, in the store in which the run's is; newest first."""
    if run.folder is None:
        return []
    return evidence.runs(run.folder.parent.parent, lab)[::-1]


def _newest(folders: Iterable[Path], name: str, model: type[Read]) -> Iterable[tuple[Path, Read]]:
    """Each folder with a document of that name; one that is damaged is no measurement."""
    for folder in folders:
        try:
            document = read_json(folder / name)
            if isinstance(document, Mapping):
                yield folder, model.read(document)
        except (OSError, ValueError, LabError):
            continue


def _where(cell: Cell) -> dict[str, Any]:
    """The cell as the measurements name it."""
    return {
        "os": cell.host.os,
        "cpu": cell.host.cpu,
        "pc": cell.host.pc,
        "engine": cell.engine,
        "engine_version": cell.engine_version,
        "acceleration": cell.acceleration,
        "image": cell.image,
    }


def _alike(where: MeasuredPlace, wanted: Mapping[str, Any]) -> bool:
    host = dict(where.host) | {"cpu": where.host.cpu or where.host.arch}
    return all((dict(where) | host)[key] == value for key, value in wanted.items())


def _comparison(document: LabCompare, folder: Path) -> ReportComparison | None:
    titles = {route.route: route.title for route in document.routes}
    measures = [
        ReportMeasure(
            name=f"{row.emulator}, {titles[row.route]}",
            seconds=tuple(row.values),
            note="; ".join([f"{row.n} of {row.planned}", *row.without]),
        )
        for row in document.summary
    ]
    ratios = [
        ReportRatio(
            name=f"{ratio.emulator}: L2's boot with {titles[ratio.over]} over {titles[ratio.under]}",
            ratio=ratio.value,
            n=min(ratio.n_over, ratio.n_under),
            low=ratio.low,
            high=ratio.high,
        )
        for ratio in document.ratios
    ]
    hows = dict.fromkeys(ratio.how for ratio in document.ratios)
    notes = [
        f"measured by lab.compare in one VM, in random order (seed {document.seed})",
        *(f"bounds of a ratio: {how}" for how in hows),
        *(f"{route.title}: {route.why_not}" for route in document.routes if route.why_not),
    ]
    try:
        return ReportComparison(
            measures=tuple(measures),
            ratios=tuple(ratios),
            note="; ".join(notes),
            source=_source(document, folder),
        )
    except ValidationError:
        return None


def _experiment(document: TheoryExperiment, folder: Path) -> ReportExperiment | None:
    trials = []
    for cell in document.cells:
        mine = [trial for trial in document.trials if trial.asked == cell.asked]
        got = [trial.delivered.words for trial in mine if trial.delivered]
        lost = [trial.outcome for trial in mine if trial.worked is None]
        without = [f"{lost.count(kind)} {kind}" for kind in dict.fromkeys(lost)]
        trials.append(
            ReportTrial(
                paravirt=cell.asked.paravirt,
                nested=cell.asked.nested,
                runs=cell.observed,
                worked=cell.worked,
                note="; ".join([*dict.fromkeys(got), *without]),
            )
        )
    return ReportExperiment(
        sentence=document.sentence,
        trials=tuple(trials),
        seed=document.seed,
        source=_source(document, folder),
    )


def _source(document: LabCompare | TheoryExperiment, folder: Path) -> ReportSource:
    return ReportSource(
        run=folder.name, lab=folder.parent.name, when=datetime.fromisoformat(document.started)
    )

"""What was measured of a cell beside its climbs: by lab.compare, and by theory.experiment.

Both leave a document of their own in an evidence folder (compare.json, experiment.json). It is shown
with a run of the same cell and no other: figures of another engine or image say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab import evidence, schema
from lab.errors import LabError
from lab.files import read_json
from lab.ladder.model import Cell
from lab.reporters.model import Compared, Comparison, Experiment, Measure, Run, Source, Trial
from lab.theory.experiment import Delivered

COMPARE, EXPERIMENT = "compare.json", "experiment.json"
PAGES = ("compare.html", "experiment.html")
"""What such a run shows by itself."""


def comparison(run: Run) -> Comparison | None:
    """The newest lab.compare of the run's cell on the lab of that name; None when there is none."""
    where = _where(run.cell) | {"nesting": run.cell.nesting.value}
    for folder, found in _newest(_beside(run, run.document["lab"]["name"]), COMPARE):
        images = {item["image"] for item in found["emulators"]}
        if _alike(found, where) and images >= {run.cell.emulator_image} - {""}:
            return _comparison(found, folder)
    return None


def experiment(run: Run) -> Experiment | None:
    """The newest theory.experiment of the run's host, engine and VM image; None when there is none."""
    where = _where(run.cell)
    for folder, found in _newest(_beside(run), EXPERIMENT):
        if _alike(found, where):
            return _experiment(found, folder)
    return None


def _beside(run: Run, lab: str | None = None) -> list[Path]:
    """The evidence folders of a lab, or of all, in the store in which the run's is; newest first."""
    if run.folder is None:
        return []
    return evidence.runs(run.folder.parent.parent, lab)[::-1]


def _newest(folders: Iterable[Path], name: str) -> Iterable[tuple[Path, Mapping[str, Any]]]:
    """Each folder with a document of that name; one that is damaged is no measurement."""
    for folder in folders:
        try:
            found = read_json(folder / name)
            if isinstance(found, Mapping):
                schema.validate(found)
                yield folder, found
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


def _alike(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    where = found["where"]
    host = {"pc": "", **where["host"]}
    host["cpu"] = host["cpu"] or host["arch"]
    return all((where | host)[key] == value for key, value in wanted.items())


def _comparison(found: Mapping[str, Any], folder: Path) -> Comparison | None:
    titles = {route["route"]: route["title"] for route in found["routes"]}
    measures = [
        Measure(
            name=f"{row['emulator']}, {titles[row['route']]}",
            seconds=tuple(row["values"]),
            note="; ".join([f"{row['n']} of {row['planned']}", *row["without"]]),
        )
        for row in found["summary"]
    ]
    ratios = [
        Compared(
            name=f"{one['emulator']}: L2's boot with {titles[one['over']]} over {titles[one['under']]}",
            ratio=one["value"],
            n=min(one["n_over"], one["n_under"]),
            low=one["low"],
            high=one["high"],
        )
        for one in found["ratios"]
    ]
    hows = dict.fromkeys(one["how"] for one in found["ratios"])
    notes = [
        f"measured by lab.compare in one VM, in random order (seed {found['seed']})",
        *(f"bounds of a ratio: {how}" for how in hows),
        *(f"{route['title']}: {route['why_not']}" for route in found["routes"] if route["why_not"]),
    ]
    try:
        return Comparison(
            measures=tuple(measures),
            ratios=tuple(ratios),
            note="; ".join(notes),
            source=_source(found, folder),
        )
    except ValidationError:
        return None


def _experiment(found: Mapping[str, Any], folder: Path) -> Experiment | None:
    trials = []
    for cell in found["cells"]:
        mine = [trial for trial in found["trials"] if trial["asked"] == cell["asked"]]
        got = [Delivered(**trial["delivered"]).words for trial in mine if trial["delivered"]]
        lost = [trial["outcome"] for trial in mine if trial["worked"] is None]
        without = [f"{lost.count(kind)} {kind}" for kind in dict.fromkeys(lost)]
        trials.append(
            Trial(
                paravirt=cell["asked"]["paravirt"],
                nested=cell["asked"]["nested"],
                runs=cell["observed"],
                worked=cell["worked"],
                note="; ".join([*dict.fromkeys(got), *without]),
            )
        )
    return Experiment(
        sentence=found["sentence"], trials=tuple(trials), seed=found["seed"], source=_source(found, folder)
    )


def _source(found: Mapping[str, Any], folder: Path) -> Source:
    return Source(run=folder.name, lab=folder.parent.name, when=datetime.fromisoformat(found["started"]))

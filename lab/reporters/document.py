"""The report as JSON: lab.report/1."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Any

from lab import __version__
from lab.characters import printable
from lab.ladder.report import describe
from lab.reporters import wording
from lab.reporters.model import ReportedRun, ReportInput


class Document:
    format = "json"
    file = "report.json"

    def render(self, run: ReportInput, _folder: Path) -> str:
        return json.dumps(document(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(run: ReportInput) -> dict[str, Any]:
    """All that a report says, in JSON's own types."""
    return {
        "schema": "lab.report/1",
        "claim": run.last.claim.value,
        "verdict": run.verdict.value,
        "reason": run.reason,
        "headline": wording.headline(run),
        "cell": describe(run.last.cell),
        "counts": [
            {"verdict": verdict.value, "runs": count} for verdict, count in run.combined.counts.items()
        ],
        "not_proven": wording.not_proven(run),
        "runs": [_run(each) for each in run.runs],
        "predictions": [
            foretold.prediction.model_dump(mode="json")
            | {"observed": foretold.observed.value, "came": foretold.came.value}
            for foretold in wording.foretold(run)
        ],
        "history": [
            row.model_dump(mode="json", exclude={"verdicts"})
            | {"verdicts": [{"claim": claim, "verdict": verdict} for claim, verdict in row.verdicts.items()]}
            for row in run.history
        ],
        "comparison": run.comparison.model_dump(mode="json") if run.comparison else None,
        "android": [stage.model_dump(mode="json") for stage in run.android],
        "experiment": run.experiment.model_dump(mode="json") if run.experiment else None,
        "written": run.written.astimezone(UTC).isoformat(timespec="seconds"),
        "lab_version": __version__,
    }


def _run(run: ReportedRun) -> dict[str, Any]:
    return {
        "validation": run.document,
        "folder": printable(str(run.folder)) if run.folder else None,
        "files": [printable(name) for name in run.files],
        "steps": [asdict(span) for span in run.steps.spans],
        "clock_jumped": run.steps.clock_jumped,
    }

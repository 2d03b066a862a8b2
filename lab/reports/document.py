"""The report as JSON: lab.report/1."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import Any

from lab import __version__
from lab.core.characters import printable
from lab.documents.reports import LabReport, ReportCount, ReportRun
from lab.ladder.document import Validation
from lab.ladder.report import describe
from lab.reports import wording
from lab.reports.model import ReportedRun, ReportInput


class Document:
    format = "json"
    file = "report.json"

    def render(self, run: ReportInput, _folder: Path) -> str:
        return json.dumps(document(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(run: ReportInput) -> dict[str, Any]:
    """All that a report says, in JSON's own types."""
    return LabReport(
        claim=run.last.claim,
        verdict=run.verdict,
        reason=run.reason,
        headline=wording.headline(run),
        cell=describe(run.last.cell),
        counts=[ReportCount(verdict=verdict, runs=count) for verdict, count in run.combined.counts.items()],
        not_proven=wording.not_proven(run),
        runs=[_run(each) for each in run.runs],
        predictions=wording.foretold(run),
        history=run.history,
        comparison=run.comparison,
        android=run.android,
        experiment=run.experiment,
        written=run.written.astimezone(UTC).isoformat(timespec="seconds"),
        lab_version=__version__,
        difference=run.difference,
        flakes=run.flakes,
    ).as_json()


def _run(run: ReportedRun) -> ReportRun:
    return ReportRun(
        validation=Validation.made_of(run.document),
        folder=printable(str(run.folder)) if run.folder else None,
        files=[printable(name) for name in run.files],
        steps=run.steps.spans,
        clock_jumped=run.steps.clock_jumped,
    )

"""lab.evidence: which runs there are, and collecting a bundle from a lab as it stands."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.config.names import check_name
from lab.core.files import read_object
from lab.documents.labs import EvidenceEntry, LabEvidence
from lab.model.domain import Verdict
from lab.records import evidence as bundles
from lab.workflow.collect import collect
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def evidence(session: Session, name: str, collect_now: bool = False) -> Reply:
    """The runs of one lab, newest last; those of a destroyed lab too."""
    check_name(name)
    if collect_now:
        bench = Workbench.open(session, name)
        with bench.lab.hold("lab.evidence"), session.steps.step("evidence") as step:
            run = bundles.Run(session.store.evidence_folder, name, "collect")
            step.result = f"{len(collect(bench, run))} files"
            bench.close()
    rows = [_row(path) for path in bundles.runs(session.store.evidence_folder, name)]

    lines = [f"{row.started[:19]}  {row.verb:<9} {row.verdict or '-':<13} {row.path}" for row in rows]
    return Reply.of(LabEvidence(runs=rows), *(lines or [f"no evidence of a lab {name}"]))


def _row(path: Path) -> EvidenceEntry:
    """One run. A file of it that is torn, or may not be read, hides neither the run nor the others: what it
    says is in the folder's name, too."""
    facts, validation = _object(path / "run.json"), _object(path / "validation.json")
    stamp, _, verb = path.name.partition("-")
    verdict = validation.get("verdict")
    try:
        files = sorted(item.name for item in path.iterdir())
    except OSError:
        files = []
    return EvidenceEntry(
        lab=str(facts.get("lab") or path.parent.name),
        run=path.name,
        verb=str(facts.get("verb") or verb or "unknown"),
        started=str(facts.get("started") or _time(stamp)),
        path=str(path),
        files=files,
        verdict=verdict if verdict in list(Verdict) else None,
    )


def _time(stamp: str) -> str:
    """When a run began, by its folder's name; the beginning of all time for a name that is none of lab's."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(stamp, bundles.STAMP).replace(tzinfo=UTC).isoformat()
    return datetime.fromtimestamp(0, UTC).isoformat()


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}

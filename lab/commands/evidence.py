"""lab.evidence: which runs there are, and collecting a bundle from a lab as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from lab import evidence as bundles
from lab.commands.collect import collect
from lab.commands.session import Reply, Session
from lab.commands.workbench import Workbench
from lab.config.names import check_name
from lab.files import read_json


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

    def tell(console: Console) -> None:
        for row in rows:
            console.print(
                f"{row['started'][:19]}  {row['verb']:<9} {row['verdict'] or '-':<13} {row['path']}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if not rows:
            console.print(f"no evidence of a lab {name}", highlight=False)

    return Reply({"schema": "lab.evidence/1", "runs": rows}, tell)


def _row(path: Path) -> dict[str, Any]:
    facts = read_json(path / "run.json") or {}
    validation = read_json(path / "validation.json")
    return {
        "lab": facts.get("lab", path.parent.name),
        "run": path.name,
        "verb": facts.get("verb", ""),
        "started": facts.get("started", ""),
        "path": str(path),
        "files": sorted(item.name for item in path.iterdir()),
        "verdict": validation["verdict"] if validation else None,
    }

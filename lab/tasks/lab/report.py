"""lab.report: the reports of a run, or of several runs of one cell, written into its evidence folder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from lab import reports
from lab.config.names import check_name
from lab.core import proc
from lab.core.errors import LabError, UsageError
from lab.core.showing import labelled
from lab.documents.reports import LabReportFiles, ReportFile
from lab.records import evidence
from lab.reports import RunFolder, measured
from lab.workflow.session import Reply, Session

_HISTORY = 200
"""How many of the lab's runs the history goes back."""


def report(session: Session, name: str, run: str = "", runs: int = 1, open_it: bool = False) -> Reply:
    """Report `run` (the newest with a verdict when empty), with the `runs` - 1 of its cell before it.

    The reports are written beside the newest run's evidence, and stay when the lab is destroyed.
    """
    check_name(name)
    if runs < 1:
        raise UsageError(f"--runs {runs}: a report is of one run at least")
    paths = _until(evidence.runs(session.store.evidence_folder, name), name, run)
    folders = [RunFolder(path) for path in paths]
    alike = _alike(folders, runs)
    earlier = reports.history(folders[-_HISTORY:])
    with session.steps.step("report") as step:
        reported = reports.read(alike, history=earlier)
        files = reports.write(reported, alike[-1].path, step.note)
        step.result = f"{len(files)} files in {alike[-1].path}"
    opened = open_it and proc.browse(files["html"].as_uri())
    document = LabReportFiles(
        lab=name,
        runs=[str(folder.path) for folder in alike],
        claim=reported.last.claim,
        verdict=reported.verdict,
        reason=reported.reason,
        files=[ReportFile(format=form, path=str(path)) for form, path in files.items()],
    )

    lines = [f"{document.claim}: {document.verdict}: {document.reason}"]
    lines += labelled(((form, str(path)) for form, path in files.items()), 10)
    if open_it and not opened:
        lines.append("no browser could be started here: open the HTML file in one")
    return Reply.of(document, *lines)


def _until(paths: list[Path], name: str, run: str) -> list[Path]:
    """The runs that came to a verdict, up to the one that is reported."""
    judged = [folder for folder in paths if (folder / "validation.json").is_file()]
    if not judged:
        own = next((page for folder in paths[::-1] for page in _pages(folder)), None)
        raise UsageError(
            f"no run of a lab {name} came to a verdict",
            hint=f"what its newest run measured has a page of its own: {own}"
            if own
            else "`invoke lab.up` or `invoke lab.validate` gives one; `invoke lab.evidence` lists the runs",
        )
    if not run:
        return judged
    names = [folder.name for folder in judged]
    if run not in names:
        raise UsageError(
            f"lab {name} has no run {run!r} with a verdict", hint="`invoke lab.evidence` lists the runs"
        )
    return judged[: names.index(run) + 1]


def _pages(folder: Path) -> list[Path]:
    """The pages of a run that measured, and judged nothing."""
    return [page for name in measured.PAGES if (page := folder / name).is_file()]


def _alike(folders: list[RunFolder], most: int) -> list[RunFolder]:
    """The newest `most` of the newest run's cell and claim: only they say anything together."""
    newest = folders[-1]
    if newest.subject is None:
        raise LabError(f"validation.json of {newest.path.name} cannot be read", evidence=[newest.path])
    alike = (folder for folder in reversed(folders) if folder.subject == newest.subject)
    return list(islice(alike, most))[::-1]

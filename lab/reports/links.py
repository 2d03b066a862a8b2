"""Links to evidence: only to files that are in a run's folder, and relative to where the report is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lab.core.characters import printable
from lab.documents.reports import ReportSource
from lab.ladder.rungs import LADDER
from lab.model.domain import Outcome
from lab.reports.model import ReportedRun

_MEASURED = tuple(f"{kind}.{form}" for kind in ("compare", "experiment") for form in ("html", "png", "json"))


@dataclass(frozen=True)
class EvidenceLink:
    """`href` is empty where there is nothing to link to, and `text` then stands alone."""

    text: str
    href: str = ""
    bytes: int = 0


def evidence(run: ReportedRun, folder: Path) -> list[EvidenceLink]:
    """Every file of the run's evidence, as seen from `folder`."""
    return [_link(run, name, folder) for name in run.files]


def of_rung(run: ReportedRun, outcome: Outcome, folder: Path) -> list[EvidenceLink]:
    """What a rung names as its evidence, then what else is known to show more of it."""
    more = [name for name in LADDER[outcome.rung].shows if outcome.tried and name in run.files]
    links = [_link(run, name, folder) for name in dict.fromkeys([*outcome.evidence, *more])]
    return [link for link in links if link.bytes or not link.href]


def measured(run: ReportedRun, source: ReportSource, folder: Path) -> list[EvidenceLink]:
    """What the run that measured left, in the store in which `run` is; nothing where it is gone."""
    if run.folder is None:
        return []
    there = run.folder.parent.parent / source.lab / source.run
    links = [_to(there / name, folder) for name in _MEASURED]
    return [link for link in links if link.href]


def _link(run: ReportedRun, name: str, folder: Path) -> EvidenceLink:
    """A name is a path in the run's folder or not at all: nothing else becomes a link."""
    if run.folder is None:
        return EvidenceLink(printable(name))
    given = Path(name)
    if given.is_absolute() and given.parent == run.folder:
        given = Path(given.name)
    if given.name != str(given) or given.name not in run.files:
        return EvidenceLink(printable(name))
    return _to(run.folder / given.name, folder)


def _to(target: Path, folder: Path) -> EvidenceLink:
    text = printable(target.name)
    try:
        size = target.stat().st_size
    except (OSError, ValueError):
        return EvidenceLink(text)
    return EvidenceLink(text, quote(os.path.relpath(target, folder), errors="surrogateescape"), size)

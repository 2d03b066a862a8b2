"""A night's report: of the runs that came to a verdict, with the nights before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from lab import reports
from lab.documents.flakes import RungRateEntry
from lab.documents.reports import PastClaim, PastRun
from lab.history import model as figures
from lab.history.flakes import rates
from lab.history.model import Night
from lab.history.store import History
from lab.nights import changed
from lab.nights.showing import cell_phrase
from lab.nights.telling import notice_of
from lab.records import evidence
from lab.reports import markdown

SUMMARY = "summary.md"
_STRIP = 60
"""How many nights the report looks back at."""
_FLAKES = 400
"""And how many for the rate at which a rung does not hold."""


def report(night: Night, history: History) -> Path:
    """Write the reports and the summary beside the night's evidence; returns what a person opens first.

    The reports know only runs that came to a verdict. Where others make the night's verdict another
    one (a run that was cut short), the summary stands alone: no page may be greener than its night.
    """
    folder, written = Path(night.evidence), dict[str, Path]()
    diff = changed.since_last_good(history, night)
    if folders := [reports.RunFolder(path) for path in _folders(night)]:
        past = _past([night, *history.earlier(night, _STRIP - 1)])
        model = reports.read(folders, history=past, difference=diff, flakes=_flakes(night, history))
        if model.verdict == night.verdict:
            written = reports.write(model, folder)
    summary = _summary(night)
    if "markdown" in written:
        summary += "\n" + written["markdown"].read_text()
    elif diff:
        summary += f"\n## Since the last good night\n\n{markdown.changed(diff)}\n"
    kept = evidence.write_text(folder / SUMMARY, summary)
    return written.get("html", kept)


def _flakes(night: Night, history: History) -> tuple[RungRateEntry, ...]:
    """The rungs that passed and did not in the night's cell on its host, over the nights before it too."""
    alike = [night, *(replace(each, host=night.host) for each in history.before(night, _FLAKES))]
    own = next((each for each in rates(alike) if each.cell == night.cell), None)
    return tuple(RungRateEntry.model_validate(rung) for rung in (own.rungs if own else ()) if rung.flaky)


def _folders(night: Night) -> list[Path]:
    """Evidence of the runs that can stand in one report: those of the last one's cell and claim."""
    runs = [run for run in night.runs if run.cell and (Path(run.evidence) / "validation.json").is_file()]
    return [Path(run.evidence) for run in runs if (run.cell, run.claim) == (runs[-1].cell, runs[-1].claim)]


def _past(nights: Sequence[Night]) -> tuple[PastRun, ...]:
    """Nights as the report shows them, oldest first."""
    return tuple(
        PastRun(
            when=datetime.fromisoformat(night.started),
            verdicts=[PastClaim(claim=each.claim, verdict=each.verdict) for each in night.claims],
            cell=cell_phrase(night),
            nested_boot_seconds=next(iter(night.samples(figures.NESTED_BOOT)), None),
            note=night.reason if not night.claims else "",
        )
        for night in reversed(nights)
        if night.verdict
    )


def _summary(night: Night) -> str:
    """The night in Markdown: the same sentences a channel would tell."""
    notice = notice_of(night)
    lines = "\n".join(f"- {_escaped(line)}" for line in notice.lines)
    return f"# {_escaped(notice.title)}\n\n{lines}\n"


def _escaped(text: str) -> str:
    """Text whose characters mean nothing to Markdown or HTML."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+!|~" else char for char in text).replace(
        "&", "&amp;"
    )

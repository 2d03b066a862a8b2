"""The report as one HTML page that needs nothing but itself: no network, no script, no font."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.ladder.report import describe, named
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from lab.reports import difference, links, wording
from lab.reports.html.drawing import draw_layers, pair
from lab.reports.html.environment import moment, render
from lab.reports.html.gantt import SHORTEST, draw_stages, draw_steps
from lab.reports.html.images import pictures
from lab.reports.html.trend import draw_trend
from lab.reports.layers import layers
from lab.reports.links import EvidenceLink
from lab.reports.model import ReportInput


class Html:
    format = "html"
    file = "report.html"

    def render(self, run: ReportInput, folder: Path) -> str:
        return render("report.html", **_page(run, folder))


def _page(run: ReportInput, folder: Path) -> dict[str, Any]:
    """What the template shows. Drawings come in pairs: for a desktop, and for a phone."""
    last = run.last
    shown, unreadable = pictures(last)
    shown_layers = layers(last)
    longest = max(run.runs, key=lambda each: each.steps.seconds)
    informing = wording.informing(longest)
    return {
        "run": run,
        "last": last,
        "verdict": run.verdict.value,
        "headline": wording.headline(run),
        "asks": wording.ASKS[last.claim],
        "means": wording.MEANS[run.verdict],
        "cell": describe(last.cell),
        "hints": wording.hints(last),
        "claims": [
            (named(claim, last.cell), wording.said(claim, last.cell), *wording.verdict_of(run, claim))
            for claim in Claim
        ],
        "asked_claim": named(last.claim, last.cell),
        "layers": shown_layers,
        "layer_drawings": pair(lambda width: draw_layers(shown_layers, width)),
        "rows": _ladder(run, folder),
        "longest": longest,
        "steps": longest.steps,
        "informing": informing,
        "shortest": SHORTEST,
        "step_drawings": pair(lambda width: draw_steps(longest.steps, width, informing)),
        "stage_drawings": pair(lambda width: draw_stages(run.android, width)),
        "trends": pair(lambda width: draw_trend(run.history, last.claim, width)),
        "came": wording.CAME,
        "foretold": wording.foretold(run),
        "compared": wording.compared(run.comparison) if run.comparison else [],
        "measured": wording.measured,
        "trials": _grid(run),
        "shown": difference.shown,
        "flake": wording.flake,
        "not_recorded": difference.not_recorded(run.difference) if run.difference else [],
        "pictures": shown,
        "unreadable": unreadable,
        "not_proven": wording.not_proven(run),
        "evidence": links.evidence(last, folder),
        "others": _others(run, folder),
        "means_of": {verdict.value: means for verdict, means in wording.MEANS.items()},
    }


def _others(run: ReportInput, folder: Path) -> list[tuple[str, list[EvidenceLink]]]:
    """The files of the earlier runs, and of those that measured."""
    others = [
        (f"Files of the run of {moment(each.started)}", links.evidence(each, folder))
        for each in run.runs[:-1]
    ]
    for part in (run.comparison, run.experiment):
        if part is not None and part.source is not None:
            source = part.source
            files = links.measured(run.last, source, folder)
            others.append((f"Files of the run {source.run} of lab {source.lab}", files))
    return others


def _ladder(run: ReportInput, folder: Path) -> list[dict[str, Any]]:
    deciding = wording.deciding(run.last)
    rows = []
    for rung in LADDER:
        outcome = run.last.outcomes.get(rung.name)
        in_all_runs = [each.outcomes.get(rung.name) for each in run.runs]
        rows.append(
            {
                "name": rung.name,
                "meaning": rung.meaning,
                "word": wording.word(outcome, run.last.claim),
                "outcome": outcome,
                "decides": rung.name == deciding,
                "informs": LADDER.informs(rung.name, run.last.claim),
                "links": links.of_rung(run.last, outcome, folder) if outcome else [],
                "passed": sum(1 for each in in_all_runs if each is not None and each.passed),
            }
        )
    return rows


def _grid(run: ReportInput) -> dict[str, dict[bool, Any]]:
    """Paravirtualization to nesting to the trial."""
    grid: dict[str, dict[bool, Any]] = {}
    for trial in run.experiment.trials if run.experiment else ():
        grid.setdefault(trial.paravirt, {})[trial.nested] = trial
    return grid

"""The report as one HTML page that needs nothing but itself: no network, no script, no font."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab import __version__
from lab.ladder.report import describe
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from lab.reports import links, text, wording
from lab.reports.html.drawing import NARROW, WIDE, draw_layers
from lab.reports.html.gantt import SHORTEST, draw_stages, draw_steps
from lab.reports.html.images import pictures
from lab.reports.html.trend import draw_trend
from lab.reports.layers import layers
from lab.reports.links import EvidenceLink
from lab.reports.model import ReportInput

_HERE = Path(__file__).parent


class Html:
    format = "html"
    file = "report.html"

    def render(self, run: ReportInput, folder: Path) -> str:
        return _environment().get_template("page.html").render(_page(run, folder))


@cache
def _environment() -> Environment:
    """Everything is escaped; what a template misnames is an error. Compiling takes longer than filling in."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = text.seconds
    environment.filters["moment"] = _moment
    environment.filters["day"] = _day
    environment.filters["size"] = _size
    # The style sheet is lab's own file: it is no text to be escaped.
    environment.globals["style"] = Markup((_HERE / "style.css").read_text())  # noqa: S704
    environment.globals["version"] = __version__
    return environment


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
        "claims": [(claim.value, wording.SAYS[claim], *wording.verdict_of(run, claim)) for claim in Claim],
        "layers": shown_layers,
        "layer_drawings": _pair(lambda width: draw_layers(shown_layers, width)),
        "rows": _ladder(run, folder),
        "longest": longest,
        "steps": longest.steps,
        "informing": informing,
        "shortest": SHORTEST,
        "step_drawings": _pair(lambda width: draw_steps(longest.steps, width, informing)),
        "stage_drawings": _pair(lambda width: draw_stages(run.android, width)),
        "trends": _pair(lambda width: draw_trend(run.history, last.claim, width)),
        "came": wording.CAME,
        "foretold": wording.foretold(run),
        "compared": wording.compared(run.comparison) if run.comparison else [],
        "measured": wording.measured,
        "trials": _grid(run),
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
        (f"Files of the run of {_moment(each.started)}", links.evidence(each, folder))
        for each in run.runs[:-1]
    ]
    for part in (run.comparison, run.experiment):
        if part is not None and part.source is not None:
            source = part.source
            files = links.measured(run.last, source, folder)
            others.append((f"Files of the run {source.run} of lab {source.lab}", files))
    return others


def _pair(draw: Any) -> list[tuple[str, Any]]:
    return [("wide", draw(WIDE)), ("narrow", draw(NARROW))]


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


def _moment(when: datetime) -> str:
    return f"{_day(when)} {when.astimezone(UTC):%Y, %H:%M} UTC"


def _day(when: datetime) -> str:
    utc = when.astimezone(UTC)
    return f"{utc.day} {utc:%B}"


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"

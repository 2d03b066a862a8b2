"""The report as Markdown, for the summary of a job in continuous integration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.core.characters import one_line, printable
from lab.documents.differences import LabDiff
from lab.documents.reports import ReportExperiment
from lab.ladder.report import describe, named
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Outcome
from lab.reports import difference, links, text, wording
from lab.reports.html.measured import PageTable
from lab.reports.layers import layers
from lab.reports.links import EvidenceLink
from lab.reports.model import ReportedRun, ReportInput

_MARKS = {
    "confirmed": "✅",
    "passed": "✅",
    "refuted": "❌",
    "failed": "❌",
    "inconclusive": "❔",
    "blocked": "⛔",
    "skipped": "⚪",
    "informs": "🔵",
    "not applicable": "⚪",
    wording.NOT_LOOKED_AT: "❔",
}
_SPECIAL = re.compile(r"([\\`*_\[\]#|~>!@]|:(?=//)|^[-+=])")
_NUMBERED = re.compile(r"^(\d+)([.)](?:\s|$))")


class Markdown:
    format = "markdown"
    file = "report.md"

    def render(self, run: ReportInput, folder: Path) -> str:
        parts = [
            *_verdict(run),
            *_layers(run.last),
            *_claims(run),
            *_ladder(run.last, folder),
            *_more(run),
        ]
        parts += ["## Not proven", _list(wording.not_proven(run)), *_evidence(run.last, folder)]
        return "\n\n".join(part for part in parts if part) + "\n"


def page(title: str, lead: str, tables: Sequence[PageTable], notes: Sequence[str] = ()) -> str:
    """A measurement's own page as Markdown: what lab.reports.html.measured shows, without the picture."""
    parts = [f"# {escaped(title)}", escaped(lead)]
    for table in tables:
        parts += [f"## {escaped(table.caption)}", _table([escaped(word) for word in table.head], table.rows)]
    return "\n\n".join([*parts, _list(notes)]).rstrip() + "\n"


def escaped(text: str) -> str:
    """`text` on one line, and nothing in it is Markdown or HTML."""
    safe = one_line(printable(text)).replace("&", "&amp;").replace("<", "&lt;")
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", safe))


def _verdict(run: ReportInput) -> list[str]:
    verdict = run.verdict
    parts = [
        f"# {_MARKS[verdict]} {verdict.capitalize()}: {escaped(wording.headline(run))}",
        f"{escaped(wording.MEANS[verdict])} Here: {escaped(run.reason)}",
        f"**Holds for** {escaped(describe(run.last.cell))}, and for nothing else.",
    ]
    if hints := wording.hints(run.last):
        parts.append(_list(f"Next: {hint}" for hint in hints))
    return parts


def _layers(run: ReportedRun) -> list[str]:
    """Each runs in the one above it."""
    rows = [(layer.name, layer.what, _marked(layer.word, layer.state)) for layer in layers(run)]
    return ["## Layers", _table(("Layer", "What it is", "State"), rows)]


def _claims(run: ReportInput) -> list[str]:
    rows = []
    for claim in Claim:
        verdict, reason = wording.verdict_of(run, claim)
        cell = run.last.cell
        rows.append((named(claim, cell), _marked(verdict), wording.said(claim, cell), reason))
    return ["## Claims", _table(("Claim", "Verdict", "Says", "Because"), rows)]


def _ladder(run: ReportedRun, folder: Path) -> list[str]:
    deciding = wording.deciding(run)
    rows = []
    for rung in LADDER:
        outcome = run.outcomes.get(rung.name)
        result = _marked(wording.word(outcome, run.claim))
        notes = ["decides"] if rung.name == deciding else []
        if outcome is not None and outcome.passed and LADDER.informs(rung.name, run.claim):
            notes.append("only informs")
        observed = _observed(outcome) if outcome else ""
        more = links.of_rung(run, outcome, folder) if outcome else []
        took = text.seconds(outcome.seconds) if outcome and outcome.seconds else ""
        rows.append(
            (rung.name, " · ".join([result, *notes]), observed or rung.meaning, took, _Raw(_links(more)))
        )
    return ["## Ladder", _table(("Rung", "Result", "Observed", "Took", "Evidence"), rows)]


def _observed(outcome: Outcome) -> str:
    if outcome.tried and not outcome.passed:
        return f"{outcome.observed} (expected: {outcome.expected})"
    return outcome.observed


def _more(run: ReportInput) -> list[str]:
    parts = []
    if len(run.runs) > 1:
        runs = [
            (f"{each.started:%Y-%m-%d %H:%M} UTC", _marked(each.verdict), each.document["reason"])
            for each in run.runs
        ]
        parts += ["## Runs", _table(("Started", "Verdict", "Because"), runs)]
    if run.difference:
        good = run.difference.before.name
        parts += [f"## Since the last good run ({escaped(good)})", changed(run.difference)]
    if run.flakes:
        flaky = [(each.rung, *wording.flake(each)) for each in run.flakes]
        parts += ["## Flaky in this cell", _table(("Rung", "Did not pass", "95 % interval"), flaky)]
    if run.predictions:
        rows = [
            (
                foretold.claim.value,
                foretold.predicted.value,
                foretold.observed.value,
                wording.CAME[foretold.came],
            )
            for foretold in wording.foretold(run)
        ]
        parts += ["## Predictions", _table(("Of", "Predicted", "Observed", "Came"), rows)]
    if run.comparison:
        parts += ["## Comparison", _list(wording.compared(run.comparison))]
    if run.experiment:
        parts += ["## Experiment", *_experiment(run.experiment)]
    return parts


def changed(diff: LabDiff) -> str:
    """What differs between two runs, as Markdown with headings of its own."""
    parts = [escaped(diff.headline)]
    rungs = [
        (row.rung, row.before, row.after, row.after_observed or row.before_observed) for row in diff.rungs
    ]
    parts += [_table(("Rung", "Before", "Now", "Observed"), rungs)] if rungs else []
    rows = [
        (part.part, change.what, *difference.shown(change, part.part))
        for part in diff.parts
        for change in part.changes
    ]
    parts += [_table(("Of", "What", "Before", "Now"), rows)] if rows else []
    for log in diff.logs:
        lines = [*(f"gone: {line}" for line in log.gone), *(f"new: {line}" for line in log.new)]
        parts += [f"Lines of {escaped(log.file)}:", _list(lines)] if lines else []
    return "\n\n".join([*parts, _list(difference.not_recorded(diff))]).rstrip()


def _experiment(experiment: ReportExperiment) -> list[str]:
    rows = [
        (trial.paravirt, "on" if trial.nested else "off", f"{trial.worked} of {trial.runs}", trial.note)
        for trial in experiment.trials
    ]
    head = ("Paravirtualization asked for", "Nesting", "/dev/kvm worked", "Reached the guest")
    source = [escaped(wording.measured(experiment.source))] if experiment.source else []
    return [escaped(experiment.sentence), _table(head, rows), *source]


def _evidence(run: ReportedRun, folder: Path) -> list[str]:
    files = links.evidence(run, folder)
    return ["## Evidence", _links(files)] if files else []


class _Raw(str):
    """A cell that is Markdown already."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head)]
    lines += [[cell if isinstance(cell, _Raw) else escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _marked(word: str, instead: str = "") -> str:
    return f"{_MARKS[word]} {instead or word}"


def _links(shown: Iterable[EvidenceLink]) -> str:
    return ", ".join(
        f"[{escaped(link.text)}]({link.href})" if link.href else escaped(link.text) for link in shown
    )

"""The report as Markdown, for the summary of a job in continuous integration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.characters import one_line, printable
from lab.figures.page import PageTable
from lab.ladder.model import BY_NAME, NAMES, Claim, Outcome, Status
from lab.ladder.report import describe
from lab.ladder.verdict import informs
from lab.reporters import links, text, wording
from lab.reporters.links import Link
from lab.reporters.model import Experiment, ReportInput, Run

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
        parts = [*_verdict(run), *_claims(run), *_ladder(run.last, folder), *_more(run)]
        parts += ["## Not proven", _list(wording.not_proven(run)), *_evidence(run.last, folder)]
        return "\n\n".join(part for part in parts if part) + "\n"


def page(title: str, lead: str, tables: Sequence[PageTable], notes: Sequence[str] = ()) -> str:
    """A measurement's own page as Markdown: what lab.figures.page shows, without the picture."""
    parts = [f"# {escaped(title)}", escaped(lead)]
    for table in tables:
        parts += [f"## {escaped(table.caption)}", _table([escaped(word) for word in table.head], table.rows)]
    return "\n\n".join([*parts, _list(notes)]).rstrip() + "\n"


def escaped(said: str) -> str:
    """`said` as text on one line: nothing in it is Markdown or HTML."""
    safe = one_line(printable(said)).replace("&", "&amp;").replace("<", "&lt;")
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", safe))


def _verdict(run: ReportInput) -> list[str]:
    verdict = run.verdict
    found = [
        f"# {_MARKS[verdict]} {verdict.capitalize()}: {escaped(wording.headline(run))}",
        f"{escaped(wording.MEANS[verdict])} Here: {escaped(run.reason)}",
        f"**Holds for** {escaped(describe(run.last.cell))}, and for nothing else.",
    ]
    if hints := wording.hints(run.last):
        found.append(_list(f"Next: {hint}" for hint in hints))
    return found


def _claims(run: ReportInput) -> list[str]:
    rows = []
    for claim in Claim:
        verdict, reason = wording.verdict_of(run, claim)
        rows.append((claim.value, _marked(verdict), wording.SAYS[claim], reason))
    return ["## Claims", _table(("Claim", "Verdict", "Says", "Because"), rows)]


def _ladder(run: Run, folder: Path) -> list[str]:
    seen, decides = run.outcomes, wording.deciding(run)
    rows = []
    for name in NAMES:
        outcome = seen.get(name)
        said = _marked(wording.word(outcome, run.claim))
        notes = [note for note, here in (("decides", name == decides),) if here]
        if outcome is not None and outcome.passed and informs(name, run.claim):
            notes.append("only informs")
        observed = _observed(outcome) if outcome else ""
        more = links.of_rung(run, outcome, folder) if outcome else []
        took = text.seconds(outcome.seconds) if outcome and outcome.seconds else ""
        rows.append(
            (name, " · ".join([said, *notes]), observed or BY_NAME[name].meaning, took, _Raw(_links(more)))
        )
    return ["## Ladder", _table(("Rung", "Result", "Observed", "Took", "Evidence"), rows)]


def _observed(outcome: Outcome) -> str:
    if outcome.status is Status.FAILED:
        return f"{outcome.observed} (expected: {outcome.expected})"
    return outcome.observed


def _more(run: ReportInput) -> list[str]:
    parts = []
    if len(run.runs) > 1:
        runs = [
            (f"{one.started:%Y-%m-%d %H:%M} UTC", _marked(one.verdict), one.document["reason"])
            for one in run.runs
        ]
        parts += ["## Runs", _table(("Started", "Verdict", "Because"), runs)]
    if run.predictions:
        rows = [
            (
                found.prediction.claim.value,
                found.prediction.predicted.value,
                found.observed.value,
                wording.CAME[found.came],
            )
            for found in wording.foretold(run)
        ]
        parts += ["## Predictions", _table(("Of", "Predicted", "Observed", "Came"), rows)]
    if run.comparison:
        parts += ["## Comparison", _list(wording.compared(run.comparison))]
    if run.experiment:
        parts += ["## Experiment", *_experiment(run.experiment)]
    return parts


def _experiment(found: Experiment) -> list[str]:
    rows = [
        (one.paravirt, "on" if one.nested else "off", f"{one.worked} of {one.runs}", one.note)
        for one in found.trials
    ]
    head = ("Paravirtualization asked for", "Nesting", "/dev/kvm worked", "Reached the guest")
    source = [escaped(wording.measured(found.source))] if found.source else []
    return [escaped(found.sentence), _table(head, rows), *source]


def _evidence(run: Run, folder: Path) -> list[str]:
    found = links.evidence(run, folder)
    return ["## Evidence", _links(found)] if found else []


class _Raw(str):
    """A cell that is Markdown already."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head)]
    lines += [[cell if isinstance(cell, _Raw) else escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _marked(word: str) -> str:
    return f"{_MARKS[word]} {word}"


def _links(found: Iterable[Link]) -> str:
    return ", ".join(f"[{escaped(one.text)}]({one.href})" if one.href else escaped(one.text) for one in found)

"""A night for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from lab.core.showing import table
from lab.history.model import Night, NightFinding, cell_document
from lab.ladder.report import describe
from lab.model.domain import Cell, Host

_STYLES = {
    "": "cyan",
    "confirmed": "green",
    "refuted": "bold red",
    "blocked": "yellow",
    "inconclusive": "yellow",
}


def style(verdict: str) -> str:
    """How a night's or a run's verdict is printed; empty is that of a night that still runs."""
    return _STYLES.get(verdict, "")


def cell_phrase(night: Night) -> str:
    """The night's cell in one phrase; empty when no run got to know it."""
    return phrase(night.cell) if night.cell else ""


def phrase(columns: Mapping[str, Any]) -> str:
    """A cell's columns (lab.history.model.CELL) in one phrase."""
    members = cell_document(columns)
    return describe(Cell(**(members | {"host": Host(**members["host"])})))


def show(console: Console, night: Night) -> None:
    """A night that has ended: verdict first."""
    rows = (
        (
            str(run.number),
            run.kind,
            Text(run.verdict, style(run.verdict)),
            f"{run.seconds:.0f}",
            Text(run.reason),
        )
        for run in night.runs
    )
    where = cell_phrase(night)
    lines = [(f"{night.claim or 'night'}: {night.verdict}: {night.reason}", style(night.verdict))]
    lines += [(f"for {where}", "dim")] if where else []
    _print(console, lines)
    console.print(table(("run", "kind", "verdict", "seconds", "reason"), rows))
    lines = [(f"{_turn(finding)[0]}: {finding.text}", _turn(finding)[1]) for finding in night.findings]
    lines += [(f"note: {note}", "yellow") for note in night.notes]
    for item in night.deliveries:
        lines.append((f"{item.channel}: {'told' if item.delivered else 'NOT told'}: {item.said}", ""))
    paths = {"report": night.report, "evidence": night.evidence}
    _print(console, [*lines, *((f"{label}: {path}", "") for label, path in paths.items() if path)])


def _turn(finding: NightFinding) -> tuple[str, str]:
    """The word before a finding, and how it is printed."""
    if finding.known:
        return "known issue", "cyan"
    return ("worse", "bold red") if finding.worse else ("better", "green")


def _print(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    for text, look in lines:
        console.print(text, style=look, soft_wrap=True)

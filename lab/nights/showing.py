"""Where a night's files are, and how a night looks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.history import Night, cell_document
from lab.history import model as figures
from lab.ladder.report import describe
from lab.model.domain import Cell, Host, Verdict
from lab.workflow.session import Session

NAME = "nightly"
"""The lab of a night, and its folder of evidence."""

_STYLES = {
    Verdict.CONFIRMED: "green",
    Verdict.REFUTED: "bold red",
    Verdict.BLOCKED: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
}


def lock_file(session: Session) -> Path:
    return session.settings.state_dir / "nightly.lock"


def log_file(session: Session) -> Path:
    """What a scheduler writes a night's output to."""
    return session.settings.state_dir / "nightly.log"


def cell_phrase(night: Night) -> str:
    """The night's cell in one phrase; empty when no run got to know it."""
    if night.cell is None:
        return ""
    found = cell_document(night.cell)
    return describe(Cell(**(found | {"host": Host(**found["host"])})))


def show(console: Console, night: Night) -> None:
    """A night for a person: verdict first."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(
        f"{night.claim or 'night'}: {night.verdict}: {night.reason}", _STYLES.get(Verdict(night.verdict), "")
    )
    if phrase := cell_phrase(night):
        line(f"for {phrase}", "dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "kind", "verdict", "seconds", "reason"):
        table.add_column(column, overflow="fold")
    for run in night.runs:
        verdict = Text(run.verdict, _STYLES.get(Verdict(run.verdict), ""))
        table.add_row(str(run.number), run.kind, verdict, f"{run.seconds:.0f}", Text(run.reason))
    console.print(table)
    for found in night.findings:
        line(f"{'worse' if found.worse else 'better'}: {found.text}", "bold red" if found.worse else "green")
    for note in night.notes:
        line(f"note: {note}", "yellow")
    for told in night.deliveries:
        line(f"{told.channel}: {'told' if told.delivered else 'NOT told'}: {told.said}")
    for label, path in (("report", night.report), ("evidence", night.evidence)):
        if path:
            line(f"{label}: {path}")


def show_all(console: Console, nights: list[Night], events: list[tuple[str, str]]) -> None:
    """The nights for a person, newest first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("night", "started", "claim", "verdict", "runs", "L2 boot", "findings"):
        table.add_column(column, overflow="fold")
    for night in nights:
        boots = night.samples(figures.NESTED_BOOT)
        verdict = night.verdict or night.state
        table.add_row(
            str(night.id),
            night.started[:16].replace("T", " "),
            night.claim,
            Text(verdict, _STYLES.get(Verdict(night.verdict), "") if night.verdict else "cyan"),
            f"{len(night.runs)} of {night.planned}",
            f"{boots[0]:.1f} s" if boots else "",
            Text("; ".join(found.text for found in night.findings)),
        )
    if nights:
        console.print(table)
    else:
        console.print("no nights: `bin/invoke nightly.run` is the first", markup=False, highlight=False)
    for at, text in events:
        console.print(f"{at[:16]} {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

"""Nights of a fleet for a person."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab.core.showing import table
from lab.documents.fleet import FleetMatrix, MatrixEntry, MatrixNight
from lab.nights.showing import style

_SIGNS = {"confirmed": "+", "refuted": "x", "blocked": "-", "inconclusive": "?", "not applicable": "n"}
"""One character a verdict, for the narrow columns of many nights; an open cell is `.`."""


def nights_shown(nights: Iterable[MatrixNight]) -> list[RenderableType]:
    """Each night whole: a line a cell, with its word."""
    shown: list[RenderableType] = []
    for night in nights:
        until = f"closed {night.closed}" if night.closed else f"closes {night.closes}"
        shown += [f"night of {night.date}, {until}", _cells(night)]
    return shown


def matrix_shown(matrix: FleetMatrix) -> list[RenderableType]:
    """Cells by nights, a sign each, the newest first; the newest night with its words."""
    head = ("cell", *(night.date[5:] for night in matrix.nights))
    by_night = [{entry.cell: entry for entry in night.entries} for night in matrix.nights]
    rows = [
        (
            Text(cell.name, "" if cell.planned else "dim"),
            *(_sign(entries.get(cell.name)) for entries in by_night),
        )
        for cell in matrix.cells
    ]
    legend = "  ".join(f"{sign} {verdict}" for verdict, sign in _SIGNS.items())
    shown: list[RenderableType] = [table(head, rows), f"{legend}  . open"]
    shown += nights_shown(matrix.nights[:1])
    return shown + ([f"page: {matrix.page}"] if matrix.page else [])


def _cells(night: MatrixNight) -> Table:
    rows = []
    for entry in night.entries:
        verdict = entry.verdict.value if entry.verdict else ""
        late = "".join(f"; later, on {item.host}: {item.verdict}: {item.word}" for item in entry.late)
        rows.append(
            (entry.cell, Text(verdict or "open", style(verdict)), entry.host, Text(f"{entry.word}{late}"))
        )
    return table(("cell", "verdict", "host", "word"), rows)


def _sign(entry: MatrixEntry | None) -> Text:
    if entry is None:
        return Text("")
    verdict = entry.verdict.value if entry.verdict else ""
    return Text(_SIGNS.get(verdict, "."), style(verdict))

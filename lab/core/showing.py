"""How an answer looks on a terminal: lines, labelled lines and tables, each in one way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table


def show(console: Console, *items: RenderableType) -> None:
    """Print each item: a text is a line, not wrapped, without markup; the rest is as Rich has it."""
    for item in items:
        if isinstance(item, str):
            console.print(item, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(item)


def labelled(lines: Iterable[tuple[str, str]], width: int) -> list[str]:
    """`label: text`, the texts below each other; a label without a text is left out."""
    return [f"{label + ':':<{width}}{text}" for label, text in lines if text]


def table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]]) -> Table:
    """A table without lines; what does not fit into its column is folded."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made

"""The page of a comparison or an experiment: a sentence, its picture, the tables behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.reports.html.charts import Chart
from lab.reports.html.drawing import pair
from lab.reports.html.environment import render


@dataclass(frozen=True)
class PageTable:
    """A table of texts; every row has as many cells as `head`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(
    title: str,
    lead: str,
    picture: Callable[[float], Chart],
    tables: Sequence[PageTable],
    notes: Sequence[str] = (),
) -> str:
    """The page. `picture` draws for a width, in pixels; whoever cannot see it is told the `lead`."""
    return render("measured.html", title=title, lead=lead, charts=pair(picture), tables=tables, notes=notes)

"""One self-contained HTML page: a sentence, a picture, the tables behind it. It needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, Template

from lab.core.characters import printable
from lab.reports.figures.picture import Chart


@dataclass(frozen=True)
class PageTable:
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(
    title: str,
    lead: str,
    picture: Chart,
    alt: str,
    tables: Sequence[PageTable],
    notes: Sequence[str] = (),
) -> str:
    """The page. All words are escaped; `alt` says what the picture shows to whoever cannot see it."""
    return _template().render(
        title=title, lead=lead, svg=picture.svg, alt=alt, tables=tables, notes=list(notes)
    )


def _shown(value: Any) -> Any:
    """What is put into the page (jinja2's `finalize`), without control characters."""
    return printable(value) if type(value) is str else value


@cache
def _template() -> Template:
    text = (resources.files("lab.reports.figures") / "templates" / "page.html").read_text()
    return Environment(autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )

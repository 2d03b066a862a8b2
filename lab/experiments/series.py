"""What came of many runs in turns: its document, its table, its sentence, its picture and pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from rich.console import Console

from lab.core.files import write_atomic
from lab.core.showing import show, table
from lab.documents.measured import LabCompare, TheoryExperiment
from lab.records.evidence import write_text
from lab.reports import markdown
from lab.reports.html.charts import Chart
from lab.reports.html.drawing import WIDE
from lab.reports.html.measured import PageTable, page
from lab.reports.html.raster import png

Document = TypeVar("Document", LabCompare, TheoryExperiment)


class Series(ABC, Generic[Document]):
    """The result of a comparison or of an experiment, as people see it; all of it follows from `document`."""

    name: ClassVar[str]
    """Base name of the files: `<name>.json`, `.png`, `.html` and `.md`."""
    title: ClassVar[str]
    caption: ClassVar[str]
    """Caption of the table that has a row for each cell."""
    head: ClassVar[tuple[str, ...]]
    """Its column heads."""

    def __init__(self, document: Document) -> None:
        self.document: Document = document

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What follows."""

    @abstractmethod
    def rows(self) -> list[list[str]]:
        """The table: a row a cell, under `head`."""

    @abstractmethod
    def turns(self) -> PageTable:
        """Each turn, in the order in which they were taken."""

    @abstractmethod
    def notes(self) -> list[str]:
        """How it was measured, and what is not in the figures."""

    @abstractmethod
    def picture(self, width: float) -> Chart:
        """The table as a picture of that width, in CSS pixels."""

    def show(self, console: Console) -> None:
        """Print the table, what follows, the notes, and where the evidence is."""
        lines = (self.sentence, *self.notes(), f"evidence: {self.document.evidence}")
        show(console, table(self.head, self.rows()), "", *lines)

    def draw(self, folder: Path) -> Path:
        """Write the picture (PNG), the page and its Markdown into `folder`; returns the page's path."""
        notes, tables = self.notes(), [PageTable(self.caption, self.head, self.rows()), self.turns()]
        write_atomic(folder / f"{self.name}.png", png(self.picture(WIDE)))
        write_text(folder / f"{self.name}.md", markdown.page(self.title, self.sentence, tables, notes))
        html = page(self.title, self.sentence, self.picture, tables, notes)
        return write_text(folder / f"{self.name}.html", html)


def counted(outcomes: Iterable[str]) -> list[str]:
    """Outcomes with how often each came up, in the order in which they came: `2 timeout`."""
    listed = list(outcomes)
    return [f"{listed.count(kind)} {kind}" for kind in dict.fromkeys(listed)]

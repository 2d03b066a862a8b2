"""What every reporter offers: lab's own, and those of other packages (found as lab.core.plugins says)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lab.reports.model import ReportInput


class Reporter(Protocol):
    format: str
    """Its name, as in the paths that are given back."""
    file: str
    """The file's name."""

    def render(self, run: ReportInput, folder: Path) -> str:
        """The whole file. `folder` is where it will be: links to evidence are relative to it."""
        ...

"""Reports of a climb, for people and for machines. A new format is a new module and a line here."""

from __future__ import annotations

from pathlib import Path

from lab.core import redact
from lab.core.files import write_atomic
from lab.reports.document import Document
from lab.reports.html import Html
from lab.reports.junit import JUnit
from lab.reports.markdown import Markdown
from lab.reports.model import ReportInput
from lab.reports.protocol import Reporter
from lab.reports.reading import RunFolder, history, read

REPORTERS: tuple[Reporter, ...] = (Html(), Document(), JUnit(), Markdown())


def write(run: ReportInput, folder: Path) -> dict[str, Path]:
    """Write every report into `folder`; format to path. An older report there is replaced."""
    written = {}
    for reporter in REPORTERS:
        target = folder / reporter.file
        write_atomic(target, redact.clean(reporter.render(run, folder)))
        written[reporter.format] = target
    return written


__all__ = ["REPORTERS", "ReportInput", "Reporter", "RunFolder", "history", "read", "write"]

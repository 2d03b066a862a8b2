"""Reports of a climb, for people and for machines, by reporters that are found by their entry points."""

from __future__ import annotations

from lab.reports.model import ReportInput
from lab.reports.protocol import Reporter
from lab.reports.reading import RunFolder, history, read
from lab.reports.writing import reporters, write

__all__ = ["ReportInput", "Reporter", "RunFolder", "history", "read", "reporters", "write"]

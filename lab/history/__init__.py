"""The nights that were: what ran, what was found, what it took; in SQLite, kept by a rule."""

from lab.history.model import (
    CELL,
    Claimed,
    Delivery,
    Ending,
    Figure,
    Finding,
    Night,
    Observed,
    Run,
    Rung,
    cell_columns,
    cell_document,
    counted,
)
from lab.history.regressions import VERDICT, findings
from lab.history.store import History, HistoryError, NotRunningError

__all__ = [
    "CELL",
    "VERDICT",
    "Claimed",
    "Delivery",
    "Ending",
    "Figure",
    "Finding",
    "History",
    "HistoryError",
    "Night",
    "NotRunningError",
    "Observed",
    "Rung",
    "Run",
    "cell_columns",
    "cell_document",
    "counted",
    "findings",
]

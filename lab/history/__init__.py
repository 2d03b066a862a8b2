"""The nights that were: what ran, what was found, what it took; in SQLite, kept by a rule."""

from lab.history.model import (
    CELL,
    Claimed,
    ClimbRecord,
    Delivery,
    Ending,
    Figure,
    Night,
    NightFinding,
    Observed,
    RungRecord,
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
    "NightFinding",
    "History",
    "HistoryError",
    "Night",
    "NotRunningError",
    "Observed",
    "RungRecord",
    "ClimbRecord",
    "cell_columns",
    "cell_document",
    "counted",
    "findings",
]

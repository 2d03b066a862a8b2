"""The history: a mark a run, and how long L2 took to boot in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.documents.reports import PastRun
from lab.model.domain import Claim
from lab.reports.html.drawing import ticks
from lab.reports.html.gantt import Tick

_PLOT = 110.0
_TOP = 34.0


@dataclass(frozen=True)
class Point:
    row: PastRun
    verdict: str
    x: float
    y: float | None
    """Of its boot time, None when none was measured."""
    other_cell: bool
    """Its cell is another than the run's before it."""


@dataclass(frozen=True)
class Trend:
    width: float
    height: float
    points: tuple[Point, ...]
    path: str
    """The line through the boot times, as an SVG path; broken where none was measured."""
    ticks: tuple[Tick, ...]
    """`x` is the height of a grid line."""
    of: int
    """How many runs there are; the newest are drawn."""
    left: float


def draw_trend(history: Sequence[PastRun], claim: Claim, width: float) -> Trend:
    """The newest runs that fit, evenly spaced."""
    left, gap = 48.0, 20.0
    fits = int((width - left - 20.0) // gap)
    shown = list(history)[-fits:]
    measured = [row.nested_boot_seconds for row in shown if row.nested_boot_seconds is not None]
    most = max(measured, default=0.0) * 1.1
    bottom = _TOP + _PLOT
    step = min(60.0, (width - left - 20.0) / max(1, len(shown)))
    points: list[Point] = []
    path, pen = [], "M"
    for index, row in enumerate(shown):
        x = left + 14.0 + index * step
        y = None
        if row.nested_boot_seconds is not None and most > 0:
            y = bottom - row.nested_boot_seconds / most * _PLOT
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
        changed = index > 0 and row.cell != shown[index - 1].cell
        points.append(Point(row, row.verdict_on(claim) or "not looked at", x, y, changed))
    marks = tuple(
        Tick(bottom - mark / most * _PLOT, f"{mark:g} s" if mark else "0")
        for mark in (ticks(most, 6) if most > 0 else [])
    )
    height = bottom + 24.0 if measured else _TOP + 6.0
    return Trend(width, height, tuple(points), " ".join(path), marks, len(history), left)

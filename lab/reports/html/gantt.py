"""A row a step: when it ran, and what ran beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lab.documents.reports import ReportStage, ReportStep
from lab.ladder.rungs import LADDER
from lab.reports import text
from lab.reports.html.drawing import WIDE, text_width, ticks, wrapped
from lab.reports.spans import Timeline

SHORTEST = 0.05
"""Seconds. Steps shorter than this are only in the table, unless they failed."""
_AXIS = 26.0


@dataclass(frozen=True)
class StepBar:
    name: str
    kind: str
    """`rung`, `work`, `failed`, `informs` or `cut`."""
    label: str
    """How long it took."""
    x: float
    y: float
    width: float
    name_x: float
    name_y: float
    label_x: float


@dataclass(frozen=True)
class Tick:
    x: float
    text: str
    anchor: str = "middle"
    """SVG's text-anchor."""


@dataclass(frozen=True)
class Gantt:
    width: float
    height: float
    bars: tuple[StepBar, ...]
    ticks: tuple[Tick, ...]
    left_out: int
    """Steps too short to be drawn."""


def draw_steps(timeline: Timeline, width: float, informing: Collection[str] = ()) -> Gantt:
    """`informing` are the rungs that were seen to fail and only inform."""
    shown = [span for span in timeline.spans if span.seconds >= SHORTEST or span.state != "finished"]
    rows = [(_indented(timeline, span), _kind(span, informing), span.start, span.seconds) for span in shown]
    return _draw(rows, timeline.seconds, width, len(timeline.spans) - len(shown))


def draw_stages(stages: Sequence[ReportStage], width: float) -> Gantt:
    """Each reached stage from the one before it to its own moment."""
    rows, before = [], 0.0
    for stage in stages:
        if stage.seconds is not None:
            rows.append((stage.name, "rung", before, max(0.0, stage.seconds - before)))
            before = max(before, stage.seconds)
    return _draw(rows, before, width, 0)


def _draw(rows: Sequence[tuple[str, str, float, float]], end: float, width: float, left_out: int) -> Gantt:
    wide = width >= WIDE
    left, height = (190.0, 22.0) if wide else (2.0, 36.0)
    labels = [text.seconds(seconds) for *_, seconds in rows]
    margin = max(map(text_width, labels), default=0.0) + 8.0
    room = width - left - margin

    def along(moment: float) -> float:
        return room * (moment / end) if end > 0 else 0.0

    bars = []
    for index, (name, kind, start, seconds) in enumerate(rows):
        top = index * height + 6.0
        x, long = left + along(start), max(2.0, along(seconds))
        bars.append(
            StepBar(
                name=wrapped(name, left - 12.0 if wide else width - 8.0, 1)[0],
                kind=kind,
                label=labels[index],
                x=x,
                y=top + (3.0 if wide else 19.0),
                width=long,
                name_x=left - 10.0 if wide else left,
                name_y=top + 13.0,
                label_x=x + long + 6.0,
            )
        )
    marks = tuple(_tick(left + along(mark), mark, width) for mark in ticks(end, 7 if wide else 4))
    return Gantt(width, len(rows) * height + _AXIS, tuple(bars), marks, left_out)


def _tick(x: float, mark: float, width: float) -> Tick:
    label = text.seconds(mark) if mark else "0"
    beyond = x + text_width(label) / 2 > width
    return Tick(x, label, "start" if not mark else "end" if beyond else "middle")


def _kind(span: ReportStep, informing: Collection[str]) -> str:
    if span.state == "failed" and span.name in informing:
        return "informs"
    if span.state != "finished":
        return "failed" if span.state == "failed" else "cut"
    return "rung" if span.name in LADDER else "work"


def _indented(timeline: Timeline, span: ReportStep) -> str:
    return "· " * timeline.depth(span) + span.name

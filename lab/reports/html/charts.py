"""Charts of measurements as shapes, in CSS pixels: the page draws them as SVG, raster.py as PNG.

Colours are names of the style sheet's variables. Nothing is said by colour alone: rows and tiles have words.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.reports import text
from lab.reports.html.drawing import FONT, WIDE, text_width, ticks, wrapped

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    ink: str


@dataclass(frozen=True)
class Dot:
    """A circle; `x` and `y` are of its middle."""

    x: float
    y: float


@dataclass(frozen=True)
class Stroke:
    """A line through `points`."""

    points: tuple[tuple[float, float], ...]
    ink: str
    width: float = 1.0


@dataclass(frozen=True)
class Words:
    """One line of text; `y` is of its baseline."""

    x: float
    y: float
    text: str
    ink: str = "ink"
    bold: bool = False
    anchor: Anchor = "start"


Shape = Box | Dot | Stroke | Words


@dataclass(frozen=True)
class Chart:
    """`foot` says what the shapes stand for; it is shown below them."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    title: str
    foot: str


@dataclass(frozen=True)
class TimesBar:
    """One row of `durations`. `marks` are measurements without a result, at the seconds they took."""

    label: str
    values: Sequence[float]
    marks: Sequence[float] = ()
    note: str = ""
    """Said below the bar: what has no value, and why."""
    group: str = ""
    """Rows of one group stand together, under its name."""


_BAR, _LINE, _EDGE = 16.0, 18.0, 6.0


def durations(title: str, bars: Sequence[TimesBar], width: float) -> Chart:
    """Horizontal bars to the median, a dot for each value, a cross for each that gave none; in seconds."""
    wide = width >= WIDE
    left = 190.0 if wide else _EDGE
    furthest = max((second for bar in bars for second in (*bar.values, *bar.marks)), default=0.0) or 1.0
    scale = (width - left - 2 * _EDGE) / furthest
    rows: list[Shape] = []
    y, group = 4.0, ""
    for bar in bars:
        if bar.group != group:
            group = bar.group
            rows.append(Words(_EDGE, y + FONT, group, bold=True))
            y += 1.5 * _LINE
        took = f"{statistics.median(bar.values):.1f} s (n = {len(bar.values)})" if bar.values else ""
        if wide:
            rows.append(Words(left - 12.0, y + FONT, bar.label, anchor="end"))
            rows.append(Words(left - 12.0, y + FONT + _LINE, took, "soft", anchor="end"))
        else:
            rows.append(Words(left, y + FONT, bar.label))
            rows.append(Words(left + text_width(bar.label) + 8.0, y + FONT, took, "soft"))
        top = y + 1.0 if wide else y + _LINE
        rows += _row(bar, left, top, scale)
        if bar.note:
            rows += [
                Words(left, top + _BAR + FONT + 2.0 + index * _LINE, line)
                for index, line in enumerate(wrapped(bar.note, width - left - _EDGE, 2))
            ]
        y = top + _BAR + 2.4 * _LINE
    marks = [(left + mark * scale, mark) for mark in ticks(furthest, 7 if wide else 4)]
    grid = [Stroke(((x, 0.0), (x, y)), "rule") for x, _ in marks]
    axis = [
        Words(x, y + FONT + 3.0, text.seconds(mark) if mark else "0", "soft", anchor=_anchor(x, width))
        for x, mark in marks
    ]
    foot = "seconds (bar: median; dot: one measurement; cross: one that gave no figure)"
    return Chart(width, y + 24.0, (*grid, *rows, *axis), title, foot)


def _row(bar: TimesBar, left: float, top: float, scale: float) -> list[Shape]:
    middle = top + _BAR / 2
    shapes: list[Shape] = []
    if bar.values:
        shapes.append(Box(left, top, statistics.median(bar.values) * scale, _BAR, "bar-soft", "bar"))
        shapes += [Dot(left + value * scale, middle) for value in bar.values]
    for mark in bar.marks:
        shapes += _cross(left + mark * scale, middle, 5.0, "bad")
    return shapes


def _anchor(x: float, width: float) -> Anchor:
    return "start" if x < 30 else "end" if x > width - 30 else "middle"


def _cross(x: float, y: float, size: float, ink: str) -> list[Stroke]:
    return [
        Stroke(((x - size, y - size), (x + size, y + size)), ink, 2.0),
        Stroke(((x - size, y + size), (x + size, y - size)), ink, 2.0),
    ]


Kind = Literal["yes", "no", "mixed", "unknown"]
_TILES: dict[Kind, tuple[str, str, str]] = {
    "yes": ("good", "good", "on-mark"),
    "no": ("panel", "ink", "ink"),
    "mixed": ("bar-soft", "bar", "ink"),
    "unknown": ("panel", "rule", "soft"),
}
"""Fill, edge and ink of a tile."""


@dataclass(frozen=True)
class Tile:
    """A cell of a grid; its kind is drawn as a sign and a fill."""

    kind: Kind
    headline: str
    lines: Sequence[str] = ()


def tiles(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Tile],
    foot: str,
    width: float,
) -> Chart:
    """A grid of tiles, `cells[row, column]`; each says in words what its look says."""
    left = 90.0 if width >= WIDE else 0.0
    step, gap = (width - left) / len(columns), 6.0
    shapes: list[Shape] = []
    y = 0.0
    for row in rows:
        heads = [wrapped(column, step - gap, 2) for column in columns] if y == 0.0 or not left else []
        if not left:
            shapes.append(Words(0.0, y + FONT, row, bold=True))
            y += 1.3 * _LINE
        for index, lines in enumerate(heads):
            shapes += _centred(lines, left + (index + 0.5) * step, y + FONT, "soft")
        y += max(map(len, heads), default=0) * _LINE
        drawn = [
            [wrapped(line, step - gap - 8.0, 3) for line in (tile.headline, *tile.lines)]
            for tile in (cells[row, column] for column in columns)
        ]
        height = 44.0 + _LINE * max(sum(map(len, lines)) for lines in drawn)
        for index, (column, (headline, *below)) in enumerate(zip(columns, drawn, strict=True)):
            fill, edge, ink = _TILES[cells[row, column].kind]
            x = left + index * step
            shapes.append(Box(x + gap / 2, y + gap / 2, step - gap, height - gap, fill, edge))
            shapes += _sign(cells[row, column].kind, x + step / 2, y + 22.0, ink)
            shapes += _centred(headline, x + step / 2, y + 50.0, ink, bold=True)
            beside = [line for lines in below for line in lines]
            shapes += _centred(beside, x + step / 2, y + 50.0 + len(headline) * _LINE, ink)
        if left:
            shapes.append(Words(left - 8.0, y + height / 2 + 4.0, row, bold=True, anchor="end"))
        y += height + 2.0
    return Chart(width, y, tuple(shapes), title, foot)


def _centred(lines: Sequence[str], x: float, y: float, ink: str, bold: bool = False) -> list[Words]:
    return [Words(x, y + index * _LINE, line, ink, bold, "middle") for index, line in enumerate(lines)]


def _sign(kind: Kind, x: float, y: float, ink: str) -> list[Stroke | Words]:
    """A tick, a cross, an unequal sign or a question mark."""
    if kind == "yes":
        return [Stroke(((x - 8, y), (x - 2, y + 6), (x + 8, y - 6)), ink, 2.5)]
    if kind == "no":
        return [*_cross(x, y, 6.0, ink)]
    if kind == "unknown":
        return [Words(x, y + 5.0, "?", ink, True, "middle")]
    levels = [Stroke(((x - 8, y + shift), (x + 8, y + shift)), ink, 2.0) for shift in (-3, 3)]
    return [*levels, Stroke(((x - 4, y + 8), (x + 4, y - 8)), ink, 2.0)]

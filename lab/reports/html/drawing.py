"""Where everything in the page's drawings goes: plain numbers, in CSS pixels, that the templates draw.

Each drawing is made for a width: a phone and a desktop get one each, so that text is never scaled down.
SVG wraps no text and measures none, so widths of characters are estimated, on the wide side.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lab.reports.layers import LayerFinding, LayerResult

Drawn = TypeVar("Drawn")

WIDE, NARROW = 866, 340
FONT = 13.0
"""Pixels; the style sheet sets the same for the drawings."""

_THIN, _BROAD = frozenset("ijl.,:;'|!()[]{}`tfrI/\\ \"-"), frozenset("mwMW@%&—")


def pair(draw: Callable[[float], Drawn]) -> list[tuple[str, Drawn]]:
    """A drawing for a desktop and one for a phone, each with its name."""
    return [("wide", draw(WIDE)), ("narrow", draw(NARROW))]


def text_width(text: str, size: float = FONT) -> float:
    """About how wide `text` is in a sans-serif font of `size` pixels; rather too wide than too narrow."""
    return sum(_em(char) for char in text) * size


def _em(char: str) -> float:
    if char in _THIN:
        return 0.37
    if char in _BROAD:
        return 0.95
    if ord(char) > 0x2000 or unicodedata.east_asian_width(char) in "WF":
        return 1.05
    return 0.72 if char.isupper() else 0.6


def wrapped(text: str, width: float, lines: int, size: float = FONT) -> list[str]:
    """`text` in at most `lines` lines no wider than `width`; what does not fit ends in an ellipsis."""
    broken: list[str] = []
    line = ""
    for word in text.split():
        for piece in _pieces(word, width, size):
            joined = f"{line} {piece}" if line else piece
            if line and text_width(joined, size) > width:
                broken.append(line)
                line = piece
            else:
                line = joined
    broken.append(line)
    if len(broken) > lines:
        last = broken[lines - 1]
        while last and text_width(last + "…", size) > width:
            last = last[:-1]
        return [*broken[: lines - 1], last.rstrip(" ,;:") + "…"]
    return broken


def _pieces(word: str, width: float, size: float) -> Iterable[str]:
    """A word, cut where it is wider than a line."""
    piece = ""
    for char in word:
        if piece and text_width(piece + char, size) > width:
            yield piece
            piece = ""
        piece += char
    if piece:
        yield piece


@dataclass(frozen=True)
class Line:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class FindingRow:
    """A finding: its mark at the left, its label, its text in lines."""

    finding: LayerFinding
    x: float
    y: float
    lines: tuple[Line, ...]
    label_x: float


@dataclass(frozen=True)
class LayerBox:
    """A layer. The one inside it is drawn after it."""

    layer: LayerResult
    x: float
    y: float
    width: float
    height: float
    rows: tuple[FindingRow, ...]


@dataclass(frozen=True)
class LayersDrawing:
    width: float
    height: float
    boxes: tuple[LayerBox, ...]


_HEAD, _ROW, _LINE, _GAP = 34.0, 22.0, 17.0, 6.0


def draw_layers(layers: Sequence[LayerResult], width: float) -> LayersDrawing:
    """Each layer as a box in the one before it, its findings above the next box."""
    wide = width >= WIDE
    pad = 16.0 if wide else 9.0
    boxes: list[tuple[LayerResult, float, float, tuple[FindingRow, ...]]] = []
    y = 1.0
    for depth, layer in enumerate(layers):
        x = 1.0 + depth * pad
        top = y
        rows, y = _rows(layer.findings, x + pad, y + _HEAD + (0 if wide else _LINE), width - 2 * x, wide, pad)
        boxes.append((layer, x, top, rows))
        y += _GAP
    bottom = y + _GAP
    height = bottom + (len(layers) - 1) * pad
    placed = tuple(
        LayerBox(layer, x, top, width - 2 * x, height - (x - 1.0) - top, rows)
        for layer, x, top, rows in boxes
    )
    return LayersDrawing(width, height + 1.0, placed)


def _rows(
    findings: Iterable[LayerFinding], x: float, y: float, width: float, wide: bool, pad: float
) -> tuple[tuple[FindingRow, ...], float]:
    rows = []
    indent = 22.0
    for finding in findings:
        label_x = x + indent
        text_x = label_x + 84.0 if wide else label_x
        room = width - pad - (text_x - x) - 6.0
        lines = wrapped(finding.text, room, 2 if wide else 3)
        first = y + (0 if wide else _LINE)
        placed = tuple(Line(text_x, first + index * _LINE + 13.0, line) for index, line in enumerate(lines))
        rows.append(FindingRow(finding, x, y, placed, label_x))
        y = first + len(lines) * _LINE + _GAP
    return tuple(rows), y


def ticks(end: float, most: int) -> list[float]:
    """At most `most` round numbers from 0 to `end`, evenly spaced, 0 among them."""
    if end <= 0:
        return [0.0]
    step = next(
        step * 10**power
        for power in range(-3, 16)
        for step in (1, 2, 5)
        if end / (step * 10**power) <= most - 1
    )
    return [round(index * step, 6) for index in range(int(end / step + 1e-9) + 1)]

"""Pictures of measurements, as PNG and as SVG. They say the same in greys: by shape, hatching and words."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _DIM, _PALE = "#1a1a1a", "#5f6368", "#d9dce0"
_FILLS = ("#2f6f8f", "#e0a84a", "#7a7f87", "#b7c9a8")
_HATCHES = ("", "///", "...", "xx")
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _DIM,
    "ytick.color": _INK,
    "hatch.linewidth": 0.7,
    "text.parse_math": False,  # words are words, dollar signs and all
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "svg.hashsalt": "lab",  # and is the same file for the same figures
}
_ROW_INCHES = 0.62


@dataclass(frozen=True)
class Chart:
    """`svg` is one <svg> element, to be put into a page."""

    svg: str
    png: bytes


@dataclass(frozen=True)
class TimesBar:
    """One row of `durations`. `marks` are measurements without a result, at the seconds they took."""

    label: str
    values: Sequence[float]
    marks: Sequence[float] = ()
    note: str = ""
    """Said at the end of the row: what has no value, and why."""
    group: str = ""
    """Rows of one group stand together, under its name."""


def durations(title: str, bars: Sequence[TimesBar]) -> Chart:
    """Horizontal bars to the median, a dot for each value, a cross for each that gave none; in seconds."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure, axes = _canvas(8.0, 1.15 + _ROW_INCHES * len(bars) + 0.3 * len({bar.group for bar in bars}))
        furthest = max((second for bar in bars for second in (*bar.values, *bar.marks)), default=0.0) or 1.0
        kinds = list(dict.fromkeys(bar.label for bar in bars))
        place, ticks, group = 0.0, [], None
        for bar in bars:
            if bar.group != group:
                group, place = bar.group, place + (0.5 if group is not None else 0.0)
                axes.text(0, place - 0.62, group, weight="bold", va="center")
            _bar(axes, place, bar, kinds.index(bar.label), furthest)
            ticks.append(place)
            place += 1.0
        axes.set_yticks(ticks, [_named(bar) for bar in bars])
        axes.set_ylim(place - 0.4, -0.95)
        axes.set_xlim(0, furthest * 1.24)
        axes.set_xlabel("seconds (bar: median; dot: one measurement; cross: one that gave no figure)")
        axes.tick_params(length=0)
        axes.grid(axis="x", color=_PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        return _draw(figure)


def _bar(axes: Axes, place: float, bar: TimesBar, kind: int, furthest: float) -> None:
    if bar.values:
        median = statistics.median(bar.values)
        fill, hatch = _FILLS[kind % len(_FILLS)], _HATCHES[kind % len(_HATCHES)]
        axes.barh(place, median, height=0.5, color=fill, hatch=hatch, edgecolor=_INK, linewidth=0.8)
        axes.plot(bar.values, [place] * len(bar.values), "o", color="white", mec=_INK, ms=5.5, mew=1.0)
    axes.plot(bar.marks, [place] * len(bar.marks), "x", color=_INK, ms=8, mew=2.0)
    if bar.note:
        last = max((*bar.values, *bar.marks), default=0.0)
        axes.text(last + furthest * 0.025, place, bar.note, va="center", ha="left")


def _named(bar: TimesBar) -> str:
    """The row's name, with its median and count below."""
    if not bar.values:
        return bar.label
    return f"{bar.label}\n{statistics.median(bar.values):.1f} s (n = {len(bar.values)})"


Kind = Literal["yes", "no", "mixed", "unknown"]
_TILES: dict[Kind, tuple[str, str, str, str]] = {
    "yes": ("#1f5f4a", "", "white", "✓"),
    "no": ("#f4f0ea", "", _INK, "✗"),
    "mixed": ("#d7d7d7", "///", _INK, "≠"),
    "unknown": ("white", "...", _DIM, "?"),
}
"""Fill, hatching, ink and sign of a tile: dark, pale, striped and dotted, in colour or without."""


@dataclass(frozen=True)
class Tile:
    kind: Kind
    headline: str
    lines: Sequence[str] = ()


def tiles(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Tile],
    foot: str = "",
) -> Chart:
    """A grid of tiles, `found[row, column]`; each says in words what its look says."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure, axes = _canvas(2.1 + 2.25 * len(columns), 1.25 + 1.35 * len(rows) + (0.3 if foot else 0.0))
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                _tile(axes, x, y, cells[row, column])
        axes.set_xlim(-0.02, len(columns) + 0.02)
        axes.set_ylim(len(rows) + 0.02, -0.02)
        axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
        axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, colors=_INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if foot:
            axes.set_xlabel(foot, color=_DIM, fontsize=9, loc="left", labelpad=10)
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        return _draw(figure)


def _tile(axes: Axes, x: float, y: float, tile: Tile) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, hatch, ink, sign = _TILES[tile.kind]
    box = FancyBboxPatch(
        (x + 0.04, y + 0.05),
        0.92,
        0.90,
        boxstyle="round,pad=0,rounding_size=0.04",
        facecolor=fill,
        edgecolor=_INK if tile.kind != "unknown" else _DIM,
        hatch=hatch,
        linewidth=1.0,
    )
    axes.add_patch(box)
    # Over hatching, words need a ground of their own.
    ground = {"facecolor": fill, "edgecolor": "none", "pad": 1.5} if hatch else None
    middle = x + 0.5
    axes.text(middle, y + 0.27, sign, color=ink, fontsize=17, ha="center", va="center", bbox=ground)
    axes.text(
        middle, y + 0.50, tile.headline, color=ink, weight="bold", ha="center", va="center", bbox=ground
    )
    below = "\n".join(tile.lines)
    axes.text(
        middle,
        y + 0.75,
        below,
        color=ink,
        fontsize=8.5,
        ha="center",
        va="center",
        linespacing=1.4,
        bbox=ground,
    )


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, in inches: nothing of matplotlib's global state is touched, no display needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _draw(figure: Figure) -> Chart:
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=144)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    text = svg.getvalue()
    return Chart(text[text.index("<svg") :].strip(), png.getvalue())

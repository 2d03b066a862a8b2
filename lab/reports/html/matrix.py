"""The matrix as a page that needs nothing but itself, and as a badge: a row a cell, a mark a night."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from lab.core.files import PRIVATE, write_atomic
from lab.documents.fleet import FleetMatrix, MatrixCell, MatrixEntry, MatrixNight
from lab.model.domain import Verdict
from lab.reports.html.drawing import NARROW, WIDE, pair, text_width
from lab.reports.html.environment import moment, render
from lab.reports.wording import MEANS

PAGE, BADGE = "matrix.html", "badge.svg"
OPEN, NOT_ASKED = "open", "not asked for"
"""What is said of a cell in a night that has no verdict yet, and in one that it had no part in."""
_STEP = 17.0
_MARK = 13.0
_PLOT = 30.0
_MOST_ROWS = 80
"""Rows of the table of what needs a look in earlier nights."""
_GOOD, _BAD, _UNSURE, _QUIET = "#19653a", "#ab2019", "#7d5200", "#545e67"


@dataclass(frozen=True)
class NightMark:
    """A cell's night in a row: `word` is its verdict, open, or not asked for."""

    x: float
    word: str
    title: str
    y: float | None
    """Of its boot time; None when none was measured."""


@dataclass(frozen=True)
class Strip:
    """A row's nights, oldest at the left, and below them how long L2 took to boot."""

    width: float
    height: float
    marks: tuple[NightMark, ...]
    path: str
    first: str
    last: str
    most: float
    """Seconds at the top of the plot; 0 where nothing was measured."""


@dataclass(frozen=True)
class CellLine:
    """A cell with what its nights came to."""

    cell: MatrixCell
    latest: MatrixEntry | None
    """Of the newest night; None where that did not ask for it."""
    word: str
    confirmed: int
    of: int
    """Of so many nights with a verdict."""
    since: str
    """Its newest verdict, and since which night it has that; empty where it never had another."""
    strips: Sequence[tuple[str, Strip]]


def page(matrix: FleetMatrix, folder: Path) -> str:
    """The page, as it stands in `folder`: links to reports are relative to it."""
    newest = matrix.nights[0] if matrix.nights else None
    rows = [_row(matrix, cell) for cell in matrix.cells]
    return render(
        "matrix.html",
        matrix=matrix,
        newest=newest,
        rows=rows,
        counts=_counts(newest),
        summary=summary(matrix),
        verdict=_overall(newest),
        looks=_looks(matrix)[:_MOST_ROWS],
        left_out=max(0, len(_looks(matrix)) - _MOST_ROWS),
        word=word,
        link=lambda path: _link(path, folder),
        made=moment(datetime.fromisoformat(matrix.made)),
        means={verdict.value: means for verdict, means in MEANS.items()},
        shown={kind: max(len(strip.marks) for row in rows for name, strip in row.strips if name == kind)
               for kind in ("wide", "narrow")} if rows else {},
    )  # fmt: skip


def badge(matrix: FleetMatrix) -> str:
    """The newest night in a small SVG. It is green only where every cell of it was confirmed."""
    newest = matrix.nights[0] if matrix.nights else None
    label = f"lab {newest.date}" if newest else "lab"
    says = summary(matrix)
    colour = {"confirmed": _GOOD, "refuted": _BAD, "": _QUIET}.get(_overall(newest), _UNSURE)
    left, right = (round(text_width(text, 11.0) + 12.0) for text in (label, says))
    return render("badge.svg", label=label, says=says, colour=colour, left=left, right=right)


def write(matrix: FleetMatrix, folder: Path, mode: int = PRIVATE) -> Path:
    """Write page and badge into `folder`, for others to read where `mode` is PUBLIC; returns the page."""
    write_atomic(folder / BADGE, badge(matrix), mode)
    write_atomic(folder / PAGE, page(matrix, folder), mode)
    return folder / PAGE


def summary(matrix: FleetMatrix) -> str:
    """The newest night in a phrase: `3 of 4 confirmed, 1 refuted`."""
    if not matrix.nights:
        return "no night yet"
    counts = _counts(matrix.nights[0])
    total = sum(counts.values()) - counts.get(Verdict.NOT_APPLICABLE, 0)
    rest = [f"{number} {name}" for name, number in counts.items() if name != Verdict.CONFIRMED]
    return ", ".join([f"{counts.get(Verdict.CONFIRMED, 0)} of {total} confirmed", *rest])


def word(entry: MatrixEntry | None) -> str:
    """What an entry is, in a word."""
    if entry is None:
        return NOT_ASKED
    return entry.verdict.value if entry.verdict else OPEN


def _counts(night: MatrixNight | None) -> Mapping[str, int]:
    """How many cells of a night came to each word; the order is that of the verdicts, then open."""
    counts = Counter(word(entry) for entry in night.entries) if night else Counter[str]()
    return {name: counts[name] for name in [*(verdict.value for verdict in Verdict), OPEN] if counts[name]}


def _overall(night: MatrixNight | None) -> str:
    """A night's colour, as the word of a verdict: confirmed where all its cells are, refuted where one is."""
    counts = dict(_counts(night))
    counts.pop(Verdict.NOT_APPLICABLE, None)
    if Verdict.REFUTED in counts:
        return Verdict.REFUTED.value
    if set(counts) == {Verdict.CONFIRMED}:
        return Verdict.CONFIRMED.value
    return Verdict.INCONCLUSIVE.value if counts else ""


def _entry(night: MatrixNight, cell: MatrixCell) -> MatrixEntry | None:
    return next((entry for entry in night.entries if entry.cell == cell.name), None)


def _row(matrix: FleetMatrix, cell: MatrixCell) -> CellLine:
    entries = [(night, _entry(night, cell)) for night in matrix.nights]
    judged = [(night, entry) for night, entry in entries if entry and entry.verdict]
    latest = entries[0][1] if entries else None
    since = ""
    if judged:
        verdict = judged[0][1].verdict
        run = next(
            (place for place, (_, entry) in enumerate(judged) if entry.verdict != verdict), len(judged)
        )
        since = f"{word(judged[0][1])} since {judged[run - 1][0].date}" if run < len(judged) else ""
    return CellLine(
        cell=cell,
        latest=latest,
        word=word(latest),
        confirmed=sum(entry.verdict is Verdict.CONFIRMED for _, entry in judged),
        of=len(judged),
        since=since,
        strips=pair(lambda width: _strip(entries, width)),
    )


def _strip(entries: Sequence[tuple[MatrixNight, MatrixEntry | None]], width: float) -> Strip:
    """The newest nights that fit; every row has the same nights, so they stand below each other."""
    room = width - (260.0 if width >= WIDE else 0.0) - 4.0
    shown = list(entries[: int(room // _STEP)])[::-1]
    boots = [entry.nested_boot for _, entry in shown if entry and entry.nested_boot is not None]
    most, top = max(boots, default=0.0), _MARK + 8.0
    marks: list[NightMark] = []
    path, pen = [], "M"
    for place, (night, entry) in enumerate(shown):
        x, y = 1.0 + place * _STEP, None
        if entry and entry.nested_boot is not None and most > 0:
            y = top + _PLOT * (1 - entry.nested_boot / most)
            path.append(f"{pen}{x + _MARK / 2:.1f} {y:.1f}")
        pen = "M" if y is None else "L"
        host = f" on {entry.host}" if entry and entry.host else ""
        marks.append(NightMark(x, word(entry), f"{night.date}: {word(entry)}{host}", y))
    height = top + _PLOT + 18.0 if most else _MARK + 20.0
    first, last = (shown[0][0].date, shown[-1][0].date) if shown else ("", "")
    return Strip(
        min(width, NARROW) if width < WIDE else room, height, tuple(marks), " ".join(path), first, last, most
    )


def _looks(matrix: FleetMatrix) -> list[tuple[MatrixNight, MatrixEntry]]:
    """What was not confirmed, newest first; and what came late."""
    quiet = (Verdict.CONFIRMED, Verdict.NOT_APPLICABLE)
    return [
        (night, entry)
        for night in matrix.nights
        for entry in night.entries
        if entry.verdict not in quiet or entry.late
    ]


def _link(path: str, folder: Path) -> str:
    """A report as seen from the page; empty where it is not there."""
    try:
        there = bool(path) and Path(path).is_file()
    except (OSError, ValueError):
        there = False
    return quote(os.path.relpath(path, folder), errors="surrogateescape") if there else ""

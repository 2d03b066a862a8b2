"""The matrix of one host's history: what it tried, by night, as a fleet's matrix is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lab.documents.fleet import CellExpectation, FleetMatrix, MatrixCell, MatrixEntry, MatrixNight
from lab.history.model import ENDED, NESTED_BOOT, Night
from lab.model.domain import Verdict

_UNKNOWN = "a cell that did not come to be known"


def of_history(nights: Sequence[Night], host: str, limit: int, own: str = "") -> FleetMatrix:
    """The newest `limit` days (all for 0) of `nights`, which are newest first.

    `host` is what this one is called and `own` its id; a night taken in from another host has that one's id.

    A night that was asked for by a key, DATE/CELL, is of that day and cell. Any other is of the day it began
    on in UTC, and its cell is engine, image and emulator; one that never came to know these is of the cell
    before it. Of several nights of a cell on a day the newest has the word, and names the others.
    """

    def named(night: Night) -> str:
        return host if night.host in ("", own) else night.host

    columns: dict[str, dict[str, list[Night]]] = {}
    hosts: dict[str, list[str]] = {}
    last: Mapping[str, Any] | None = None
    for night in reversed(nights):
        last = night.cell or last
        date, _, name = night.key.partition("/")
        if not name:
            date, name = _day(night.started), _title(last)
        columns.setdefault(date, {}).setdefault(name, []).append(night)
        hosts.setdefault(name, []).append(named(night))
    dates = sorted(columns, reverse=True)[: limit or None]
    names = list(dict.fromkeys(name for date in dates for name in columns[date]))
    return FleetMatrix(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        cells=[_cell(name, hosts[name]) for name in names],
        nights=[_column(date, columns[date], named) for date in dates],
        page="",
    )


def _column(date: str, cells: Mapping[str, Sequence[Night]], named: Callable[[Night], str]) -> MatrixNight:
    entries = [_entry(name, nights, named(nights[-1])) for name, nights in cells.items()]
    return MatrixNight(date=date, asked=None, closes=None, closed=None, entries=entries)


def _entry(name: str, nights: Sequence[Night], host: str) -> MatrixEntry:
    *earlier, newest = nights
    ended = newest.state == ENDED
    words = newest.reason if ended else f"a night runs since {newest.started}"
    if earlier:
        verdicts = ", ".join(night.verdict or night.state for night in earlier)
        words = f"{words} (earlier on that day: {verdicts})"
    return MatrixEntry(
        cell=name,
        state="settled" if ended else "open",
        verdict=Verdict(newest.verdict) if ended else None,
        claim=newest.claim,
        host=host,
        word=words,
        uuid=newest.uuid,
        started=newest.started,
        seconds=newest.seconds,
        nested_boot=next(iter(newest.samples(NESTED_BOOT)), None),
        report=newest.report,
        late=(),
    )


def _cell(name: str, hosts: Sequence[str]) -> MatrixCell:
    nothing = CellExpectation(host="", virtualbox="", processor="")
    return MatrixCell(
        name=name, tags=(), hosts=tuple(dict.fromkeys(hosts)), settings=(), expects=nothing, planned=False
    )


def _title(cell: Mapping[str, Any] | None) -> str:
    """Engine, image and emulator: what a person chose. Versions change from night to night."""
    if cell is None:
        return _UNKNOWN
    image = str(cell["image"]).rsplit("-", 1)[0]
    return " · ".join(part for part in (cell["engine"], image, cell["emulator"]) if part)


def _day(started: str) -> str:
    return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%d")

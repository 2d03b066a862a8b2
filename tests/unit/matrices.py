"""Matrices for the tests of their page."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from lab.documents.fleet import (
    CellExpectation,
    FleetMatrix,
    LateResult,
    MatrixCell,
    MatrixEntry,
    MatrixNight,
)

AT = "2026-12-01T06:00:00+00:00"
HOSTILE = '<script>alert(1)</script> "&\u202e\x1b[31m'


def cell(name: str, **more: Any) -> MatrixCell:
    """A cell of that name."""
    members: dict[str, Any] = {"tags": ("linux",), "hosts": ("attic",), "settings": (), "planned": True}
    nothing = CellExpectation(host="", virtualbox="", processor="")
    return MatrixCell(**({"name": name, "expects": nothing} | members | more))


def entry(name: str, verdict: str = "confirmed", **more: Any) -> MatrixEntry:
    """What a cell came to; `open` is no verdict."""
    members: dict[str, Any] = {
        "cell": name,
        "state": "open" if verdict == "open" else "settled",
        "verdict": None if verdict == "open" else verdict,
        "claim": "nesting",
        "host": "attic",
        "word": f"{verdict}: every rung it needs passed, up to nested.adb",
        "uuid": "",
        "started": AT,
        "seconds": 240.0,
        "nested_boot": None,
        "report": "",
        "late": (),
    }
    return MatrixEntry(**(members | more))


def late() -> LateResult:
    """A result that came after the hour."""
    return LateResult(at=AT, host="attic", uuid="u", verdict="confirmed", word="every rung passed")


def night(day: str, *entries: MatrixEntry, closed: bool = True) -> MatrixNight:
    """A night with these entries."""
    return MatrixNight(date=day, asked=AT, closes=AT, closed=AT if closed else None, entries=entries)


def matrix(cells: list[MatrixCell], nights: list[MatrixNight]) -> FleetMatrix:
    """The matrix of these, newest night first."""
    return FleetMatrix(made=AT, cells=cells, nights=nights, page="")


def large(cells: int = 20, nights: int = 200, hostile: str = "") -> FleetMatrix:
    """A team's: mostly confirmed, a cell that turned, one with gaps, one that is open, boots of a trend."""
    names = [f"{hostile}cell {number} of VirtualBox 7.2 on a Mac" for number in range(cells)]
    columns = []
    for back in range(nights):
        entries = []
        for number, name in enumerate(names):
            if number == 3 and back % 5 == 2:
                continue
            verdict = "confirmed"
            if number == 1 and back < 4:
                verdict = "refuted"
            if (number * 7 + back * 3) % 41 == 0:
                verdict = "inconclusive"
            if number == 2 and back == 0:
                verdict = "open"
            boot = (
                7.0 + (number * 3 + back * 5) % 11 / 4 if verdict == "confirmed" and number % 3 == 0 else None
            )
            entries.append(entry(name, verdict, nested_boot=boot, host=f"{hostile}attic"))
        day = (date(2026, 12, 1) - timedelta(days=back)).isoformat()
        columns.append(night(day, *entries, closed=back > 0))
    return matrix([cell(name, tags=(f"{hostile}mac", "vt-x")) for name in names], columns)

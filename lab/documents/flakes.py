"""How often each rung did not hold: nightly.flakes prints it, and a night's report has it of its cell."""

from __future__ import annotations

from typing import Annotated

from lab.ladder.document import CellEntry, RungName
from lab.model.document import Count, JsonDocument, JsonPart, Limited, Ordinal

Share = Annotated[float, Limited(ge=0, le=1)]


class RungRateEntry(JsonPart):
    """A rung over many runs of one cell"""

    rung: RungName
    tried: Ordinal
    """runs in which it passed, failed or was inconclusive"""
    failed: Count
    inconclusive: Count
    rate: Share
    """of the tries, the share in which it did not pass"""
    low: Share
    high: Share
    """the rate's 95 % interval, by Wilson's score"""
    flaky: bool
    """it passed, and did not, in the same cell"""


class FlakyCell(JsonPart):
    """One cell on one host"""

    host: str
    """its id; empty for nights of before hosts had one"""
    cell: CellEntry
    nights: Ordinal
    rungs: tuple[RungRateEntry, ...]
    """lowest first"""


class NightlyFlakes(JsonDocument):
    """How often each rung did not hold, in each cell, over the nights on record"""

    tag = "nightly.flakes/1"

    nights: Count
    """how many were looked at"""
    cells: tuple[FlakyCell, ...]
    """that of the newest night first"""

"""Many runs in turns: their order, and the runner that keeps each result before the next is taken."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from lab import __version__
from lab.core.errors import InterruptedByUser
from lab.experiments.series import Series
from lab.records.evidence import Run

Cell = TypeVar("Cell")
Entry = TypeVar("Entry")
AnySeries = TypeVar("AnySeries", bound=Series[Any])

AGAIN = "what was measured is kept in the evidence; the same command measures anew, from the beginning"
"""What is said when a measurement is interrupted."""


@dataclass(frozen=True)
class Turn(Generic[Cell]):
    """One planned run of a cell. `number` is its place in the order, from 1."""

    number: int
    round: int
    cell: Cell


def seed_of(asked: int) -> int:
    """The seed that was asked for, or for 0 one drawn at random."""
    return asked or secrets.randbelow(2**32) + 1


def plan(cells: Sequence[Cell], runs: int, seed: int) -> list[Turn[Cell]]:
    """`runs` rounds, each of them every cell once, in an order of its own.

    A slow drift of the machine then falls on all cells alike.
    """
    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    turns: list[Turn[Cell]] = []
    for number in range(1, runs + 1):
        once = list(cells)
        chance.shuffle(once)
        turns += [Turn(len(turns) + place, number, cell) for place, cell in enumerate(once, 1)]
    return turns


def conduct(
    run: Run,
    turns: Sequence[Turn[Cell]],
    take: Callable[[], Iterable[Entry]],
    not_taken: Callable[[Turn[Cell], str], Entry],
    series: Callable[..., AnySeries],
    draw: bool = True,
) -> AnySeries:
    """Take every turn and return what came of them all.

    `take` gives an entry for each turn, in their order. `series(entries, **common)` builds the result; for
    turns not run, `not_taken(turn, reason)` gives the entry. The result is on disk before the next turn is
    taken; its pages are drawn (if `draw`) however the run ends.
    """
    taken: list[Entry] = []
    ended = "its turn has not come"
    began, clock = datetime.now(UTC), time.monotonic()

    def kept() -> AnySeries:
        result = series(
            [*taken, *(not_taken(turn, ended) for turn in turns[len(taken) :])],
            started=began.isoformat(timespec="milliseconds"),
            seconds=round(time.monotonic() - clock, 3),
            evidence=str(run.path),
            lab_version=__version__,
        )
        run.json(f"{result.name}.json", result.document.as_json())
        return result

    try:
        for entry in take():
            taken.append(entry)
            kept()
    except (InterruptedByUser, KeyboardInterrupt):
        ended = "interrupted"
        raise
    except BaseException as error:
        ended = f"lab itself failed: {error!r}"
        raise
    finally:
        result = kept()
        if draw:
            result.draw(run.path)
    return result

"""What the fleet asked for, night by night, and what came of it: a file a night, on the coordinator.

An entry is written before its cell is asked for, so that a command that was killed can be run again. Who
writes holds the ledger's lock.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from lab.core import files, lock
from lab.core.files import DamagedFileError
from lab.documents.fleet import MatrixCell, MatrixEntry
from lab.fleet.places import Coordinator
from lab.model.document import JsonPart

_NAME = re.compile(r"\d{4}-\d\d-\d\d")


class LedgerCell(JsonPart):
    """A cell of one night, as it was when it was asked for, and what came of it."""

    cell: MatrixCell
    entry: MatrixEntry
    request: int | None
    """its number in the queue; null while the queue has not taken it, and where no host fits"""

    def with_entry(self, **changes: object) -> Self:
        """The same with members of its entry changed."""
        return self.model_copy(update={"entry": self.entry.model_copy(update=changes)})


class LedgerNight(JsonPart):
    """One night of the fleet."""

    date: str
    asked: str
    closes: str
    closed: str | None
    told: tuple[str, ...]
    """the channels that took its notice, or were given up"""
    cells: tuple[LedgerCell, ...]

    def cell(self, name: str) -> LedgerCell | None:
        """What was asked for under that name."""
        return next((each for each in self.cells if each.cell.name == name), None)

    def replaced(self, new: LedgerCell) -> Self:
        """The night with one cell in the place of that of its name."""
        cells = tuple(new if each.cell.name == new.cell.name else each for each in self.cells)
        return self.model_copy(update={"cells": cells})

    @property
    def open(self) -> list[LedgerCell]:
        """The cells of which nothing is known yet."""
        return [each for each in self.cells if each.entry.state == "open"]


class Ledger:
    """All nights of a coordinator."""

    def __init__(self, places: Coordinator) -> None:
        self.places = places

    @contextlib.contextmanager
    def writing(self, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Be the one command that changes it; others are waited for. Raises BusyError, InterruptedByUser."""
        files.private_folder(self.places.folder)
        with lock.when_free(self.places.lock, "the fleet's nights", say=say):
            yield

    def dates(self) -> list[str]:
        """The nights there are, newest first."""
        if not self.places.nights.is_dir():
            return []
        names = [path.stem for path in self.places.nights.glob("*.json")]
        return sorted((name for name in names if is_date(name)), reverse=True)

    def night(self, day: str) -> LedgerNight | None:
        """The night of that date; None where nothing was asked for. Raises DamagedFileError."""
        path = self._path(day)
        try:
            return LedgerNight.model_validate_json(files.read_text(path))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            raise DamagedFileError(path, f"no night of a fleet ({error})") from error

    def nights(self, limit: int = 0) -> list[LedgerNight]:
        """The newest `limit`, newest first; all of them for 0. Raises DamagedFileError."""
        return [night for day in self.dates()[: limit or None] if (night := self.night(day))]

    def unclosed(self) -> list[LedgerNight]:
        """Those whose hour has not come, or was not looked at, newest first. Raises DamagedFileError."""
        days = [day for day in self.dates() if not self._marker(day).exists()]
        return [night for day in days if (night := self.night(day))]

    def write(self, night: LedgerNight) -> None:
        """Put a night down, for a caller who holds the lock; afterwards jobs know whether it is closed."""
        files.write_json(self._path(night.date), night.as_json())
        if night.closed and not self._marker(night.date).exists():
            files.write_atomic(self._marker(night.date), "")

    def _marker(self, day: str) -> Path:
        """There once the night is closed: jobs look at it (buildbot/master.cfg)."""
        return self.places.nights / f"{day}.closed"

    def _path(self, day: str) -> Path:
        return self.places.nights / f"{day}.json"


def is_date(text: str) -> bool:
    """Whether it is a day as keys have it: YYYY-MM-DD."""
    try:
        return bool(_NAME.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False

"""Writing a night down, also where there is no room at first."""

from __future__ import annotations

from collections.abc import Callable

from lab.history.database import HistoryError


class Writes:
    """Writes to the history, in order. One that fails (a full disk) is tried again with the next."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self.fault: HistoryError | None = None
        """What the first write that waits failed with; None where none waits."""

    def __call__(self, write: Callable[[], None]) -> None:
        """Do a write, behind those that wait."""
        self._waiting.append(write)
        self.again()

    def again(self) -> None:
        """Try what waits once more."""
        self.fault = None
        while self._waiting and self.fault is None:
            write = self._waiting.pop(0)
            try:
                write()
            except HistoryError as error:
                self._waiting.insert(0, write)
                self.fault = error

"""Time for a night: a budget on the monotonic clock, and an eye on the wall clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from lab.core.deadline import Deadline, cancelled

JUMP_SECONDS = 10.0
"""A wall clock that moves this much against the monotonic one was set, or the host slept."""


class Budget:
    """Ends all waiting in this process once `seconds` have passed. Used as a context manager.

    What waits then raises InterruptedByUser, as for Ctrl-C; `spent` tells the two apart.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over = threading.Event()
        self.spent = False

    def __enter__(self) -> Self:
        self._deadline = Deadline.after(self.seconds)
        self._watch = threading.Thread(target=self._wait, name="lab-budget", daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        if self.spent:
            cancelled.clear(self)  # what follows is the night's own tidying up

    def _wait(self) -> None:
        if not self._over.wait(self._deadline.left):
            self.spent = True
            cancelled.set(self)


class WallClock:
    """How far the wall clock moved against the monotonic one, between looks. `wall` tells its time."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._read = wall
        self._wall, self._steady = wall(), time.monotonic()
        self.jump = 0.0
        """The largest move so far, in seconds; 0.0 below JUMP_SECONDS."""

    def look(self) -> None:
        wall, steady = self._read(), time.monotonic()
        moved = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        if abs(moved) >= JUMP_SECONDS and abs(moved) > abs(self.jump):
            self.jump = round(moved, 3)

"""Deadlines on the monotonic clock, polling, and the one switch that cancels all waiting."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from lab.errors import DeadlineError, InterruptedByUser

T = TypeVar("T")

POLL_SECONDS = 0.5
"""How often readiness is polled: a change is noticed within 1 s."""

cancelled = threading.Event()
"""Set when the command is to stop: every wait in every thread then raises InterruptedByUser."""


def check_cancelled() -> None:
    """Raise InterruptedByUser if the command was asked to stop."""
    if cancelled.is_set():
        raise InterruptedByUser("interrupted")


def pause(seconds: float) -> None:
    """Sleep, unless the command is asked to stop: then raise InterruptedByUser at once."""
    cancelled.wait(seconds)
    check_cancelled()


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Waits in here go on although the command was asked to stop: for what must not be left behind."""
    asked = cancelled.is_set()
    cancelled.clear()
    try:
        yield
    finally:
        if asked:
            cancelled.set()


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock. `Deadline.after(s)` is `s` seconds from now."""

    at: float
    seconds: float
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        now = time.monotonic()
        return cls(at=now + seconds, seconds=seconds, started=now)

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now."""
        other = Deadline.after(seconds)
        return other if other.at < self.at else self


def poll(
    probe: Callable[[], T | None],
    deadline: Deadline,
    what: str,
    *,
    hint: str = "",
    every: float = POLL_SECONDS,
) -> T:
    """Call `probe` until it answers something other than None.

    Raises DeadlineError naming `what` and the last refusal the probe explained through
    `NotYet`, InterruptedByUser when the command is cancelled.
    """
    last = ""
    while True:
        check_cancelled()
        try:
            answer = probe()
        except NotYet as reason:
            answer, last = None, str(reason)
        if answer is not None:
            return answer
        if deadline.passed:
            because = f" (last: {last})" if last else ""
            raise DeadlineError(f"{what} did not happen in {deadline.seconds:.0f} s{because}", hint=hint)
        pause(min(every, max(0.01, deadline.left)))


class NotYet(Exception):  # noqa: N818 - a state, not a fault
    """A probe's way to say "not yet, because …" to `poll`."""

"""Deadlines on the monotonic clock, polling, and the one switch that cancels all waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lab.core.errors import DeadlineError, InterruptedByUser

T = TypeVar("T")

POLL_SECONDS = 0.5
"""How often readiness is polled: a change is noticed within 1 s."""

_NOTICE_SECONDS = 0.05
"""How soon a wait notices that it is to end."""

USER = "the user"
"""Key of a request by Ctrl-C or signal."""


class Cancellation:
    """Who wants all waiting to end; it ends while anybody does.

    Several may ask at once: the user, a budget that is spent, a command that leaves background work behind.
    Each takes back only its own asking, so none can undo another's. There is no lock in here: a signal's
    handler asks, too, and would wait for ever for a lock that the code it interrupted holds.
    """

    def __init__(self) -> None:
        # Changed in place by single operations, which no other thread and no signal can cut in two.
        self._askers: set[object] = set()
        self._ignored: set[object] = set()

    def set(self, who: object = USER) -> None:
        """Ask for all waiting to end. Asking again overrides `ignored()`."""
        self._askers.add(who)
        self._ignored.discard(who)

    def clear(self, who: object = None) -> None:
        """Take back what `who` asked for; without one, what everybody did."""
        for asker in tuple(self._askers) if who is None else (who,):
            self._askers.discard(asker)
            self._ignored.discard(asker)

    def is_set(self) -> bool:
        """Whether anybody asks who is not ignored."""
        return any(asker not in self._ignored for asker in tuple(self._askers))

    def asked_by(self, who: object) -> bool:
        """Whether `who` asked and did not take it back, ignored or not."""
        return who in self._askers

    def wait(self, seconds: float) -> bool:
        """Sleep, no longer than until somebody asks; whether somebody did."""
        end = time.monotonic() + seconds
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            time.sleep(min(_NOTICE_SECONDS, left))
        return self.is_set()

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """In here, what was asked before ends no wait; what is asked anew does."""
        passed_over = set(self._askers) - self._ignored
        self._ignored |= passed_over
        try:
            yield
        finally:
            self._ignored -= passed_over


cancelled = Cancellation()
"""While it is set the command is to stop: every wait in every thread raises InterruptedByUser."""


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
    with cancelled.ignored():
        yield


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, `at`, that was `seconds` away when the deadline was set."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
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

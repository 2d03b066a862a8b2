"""Reads from a socket that are counted, and look at the deadline and at cancellation.

A timeout of requests bounds one silence of the server, not its whole answer: a header that never ends, a
byte every few seconds, the body of a redirect are all read to their end. So every byte is counted below HTTP.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextvars import ContextVar

from lab.core.bounds import Limits, Watched
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError


class Bounds(Limits):
    """The limits of one exchange over the web; `what` is asked for, and named in errors."""

    def __init__(self, what: str, deadline: Deadline, limit: int) -> None:
        super().__init__(deadline, limit)
        self._what = what

    def late(self) -> Exception:
        return DeadlineError(f"{self._what} was not fetched in {self.deadline.seconds:.0f} s")

    def too_much(self) -> Exception:
        return BlockedError(f"{self._what} sends more than {self._limit} bytes: not what was asked for")


current: ContextVar[Bounds] = ContextVar("bounds")
"""What this thread's reads keep to."""


@contextlib.contextmanager
def bounded(what: str, deadline: Deadline, limit: int) -> Iterator[None]:
    """Everything this thread receives in here, by a Session or a `watched` socket, is one bounded exchange.

    `what` names it in errors; `limit` is bytes, headers included. Reads raise DeadlineError, BlockedError
    (too long), InterruptedByUser.
    """
    bounds = Bounds(what, deadline, limit)
    bounds.check()
    token = current.set(bounds)
    try:
        yield
    finally:
        current.reset(token)


def watched(plain: socket.socket) -> Watched:
    """A connected socket, to be used in `bounded`: its reads keep to those bounds."""
    return Watched(plain, current.get)

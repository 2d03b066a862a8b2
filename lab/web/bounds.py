"""Reads from a socket that are counted, and look at the deadline and at cancellation.

A timeout of requests bounds one silence of the server, not its whole answer: a header that never ends, a
byte every few seconds, the body of a redirect are all read to their end. So every byte is counted below HTTP.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from lab.deadline import Deadline, check_cancelled
from lab.errors import BlockedError, DeadlineError

_LOOK_SECONDS = 0.2
"""How often a read that waits looks up."""
LONGEST_SILENCE = 3600.0


class Bounds:
    """What one exchange may take: until `deadline`, and `limit` bytes of all that is received."""

    def __init__(self, what: str, deadline: Deadline, limit: int) -> None:
        self._what, self.deadline, self._limit = what, deadline, limit
        self._received = 0

    def check(self) -> None:
        """Raises DeadlineError, InterruptedByUser."""
        check_cancelled()
        if self.deadline.passed:
            raise DeadlineError(f"{self._what} was not fetched in {self.deadline.seconds:.0f} s")

    def add(self, count: int) -> None:
        """Count bytes that came. Raises BlockedError when they are too many."""
        self._received += count
        if self._received > self._limit:
            raise BlockedError(f"{self._what} sends more than {self._limit} bytes: not what was asked for")


current: ContextVar[Bounds] = ContextVar("bounds")
"""What this thread's reads keep to."""


@contextlib.contextmanager
def bounded(what: str, deadline: Deadline, limit: int) -> Iterator[None]:
    """Everything this thread receives in here, by a Session or a Watched socket, is one bounded exchange.

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


class Watched:
    """A connected socket whose reads keep to the bounds of the exchange; else it is the socket itself."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._silence = plain.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def settimeout(self, seconds: float | None) -> None:
        self._silence = seconds
        self._plain.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: Any) -> int:
        """As a socket's. Raises TimeoutError after a silence as long as the socket's timeout."""
        bounds = current.get()
        silence = Deadline.after(LONGEST_SILENCE if self._silence is None else self._silence)
        try:
            while True:
                bounds.check()
                wait = min(_LOOK_SECONDS, silence.left, bounds.deadline.left)
                self._plain.settimeout(max(0.01, wait))
                try:
                    count = self._plain.recv_into(buffer)
                    break
                except TimeoutError:
                    if silence.passed:
                        raise
        finally:
            with contextlib.suppress(OSError):
                self._plain.settimeout(self._silence)
        bounds.add(count)
        return count

    def makefile(self, *_: Any) -> io.BufferedReader:
        """The socket as a file to read bytes from."""
        return io.BufferedReader(_Stream(self))


class _Stream(io.RawIOBase):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        # The socket counts those that read it: closed by its connection, it lives until this is closed.
        self._held = watched._plain.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._watched.recv_into(buffer)

    def close(self) -> None:
        self._held.close()
        super().close()

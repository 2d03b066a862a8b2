"""Whatever comes from outside is read only so far and so long: bytes, lines, files and connections.

A guest may talk for ever. What is left out of a text says so in its place; what cannot be used in part
is an error. Waiting looks at its deadline and at the switch that cancels all waiting.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lab.deadline import Deadline, check_cancelled
from lab.errors import InconclusiveError

TEXT_BYTES = 16 << 20
"""Kept of the output of one command, and of one file."""
LINE_BYTES = 64 << 10
"""A longer line is told in pieces."""
CHUNK_BYTES = 64 << 10
"""Read at once, between two looks at the clock."""

_LOOK_SECONDS = 0.2


class TooMuchError(InconclusiveError):
    """More came than any good answer has: nothing of it is used."""


class Kept:
    """Bytes as they come. Of more than `limit` the first and the last half of it are kept."""

    def __init__(self, limit: int = TEXT_BYTES) -> None:
        self._half = limit // 2
        self._head, self._tail = bytearray(), bytearray()
        self._came = 0

    def add(self, chunk: bytes) -> None:
        self._came += len(chunk)
        room = max(0, self._half - len(self._head))
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * self._half:  # seldom, since it moves bytes
            del self._tail[: -self._half]

    @property
    def text(self) -> str:
        """As UTF-8; where something was left out, a line says how much."""
        tail = self._tail[len(self._tail) - min(len(self._tail), self._half) :]
        return _joined(bytes(self._head), bytes(tail), self._came)


class Lines:
    """Calls `hear` with each line, without its end, as soon as it is whole."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self._begun = b""

    def add(self, chunk: bytes) -> None:
        *whole, begun = (self._begun + chunk).split(b"\n")
        for line in whole:
            self._tell(line)
        while len(begun) > LINE_BYTES:
            self._tell(begun[:LINE_BYTES])
            begun = begun[LINE_BYTES:]
        self._begun = begun

    def end(self) -> None:
        """Nothing more comes: a line that was begun is all there is of it."""
        if self._begun:
            self._tell(self._begun)
        self._begun = b""

    def _tell(self, line: bytes) -> None:
        self._hear(line.decode(errors="replace").removesuffix("\r"))


def read_text(path: Path, start: int = 0, limit: int = TEXT_BYTES) -> str:
    """A file from byte `start` on, as UTF-8: of more than `limit` bytes the first and the last half.

    Raises OSError.
    """
    half = limit // 2
    with path.open("rb") as stream:
        stream.seek(start)
        head = stream.read(half)
        end = max(stream.seek(0, os.SEEK_END), start + len(head))
        stream.seek(max(start + len(head), end - half))
        return _joined(head, stream.read(half), end - start)


def _joined(head: bytes, tail: bytes, came: int) -> str:
    if came > len(head) + len(tail):
        # At line ends: half of a secret would not be known for one.
        head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        left_out = f"[lab: {came - len(head) - len(tail)} bytes were left out here]\n"
        return head.decode(errors="replace") + left_out + tail.decode(errors="replace")
    return (head + tail).decode(errors="replace")


class Wire(socket.socket):
    """A connection that is read until `deadline` at most, and `limit` bytes at most (from here on).

    Reading raises TimeoutError (also when nothing comes for its own timeout), TooMuchError and
    InterruptedByUser.
    """

    deadline: Deadline
    limit: int

    @classmethod
    def over(cls, plain: socket.socket, deadline: Deadline, limit: int = TEXT_BYTES) -> Self:
        """The same connection; `plain` is not to be used any more."""
        seconds = plain.gettimeout()
        wire = cls(fileno=plain.detach())
        wire.settimeout(seconds)
        wire.deadline, wire.limit = deadline, limit
        return wire

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._await()
        chunk = super().recv(size, flags)
        self._count(len(chunk))
        return chunk

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self._await()
        size = super().recv_into(buffer, nbytes, flags)
        self._count(size)
        return size

    def _await(self) -> None:
        idle = self.gettimeout()
        until = self.deadline if idle is None else self.deadline.within(idle)
        while True:
            check_cancelled()
            if self.deadline.passed:
                raise TimeoutError(f"the answer did not end in {self.deadline.seconds:.0f} s")
            if select.select([self], [], [], min(_LOOK_SECONDS, until.left))[0]:
                return
            if until.passed:
                raise TimeoutError("timed out")

    def _count(self, size: int) -> None:
        self.limit -= size
        if self.limit < 0:
            raise TooMuchError("what answers goes on talking: more came than any answer has")

"""Whatever comes from outside is read only so far and so long: bytes, lines, files and connections.

A guest may talk for ever. What is left out of a text says so in its place; what cannot be used in part
is an error. Waiting looks at its deadline and at the switch that cancels all waiting.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import InconclusiveError

TEXT_BYTES = 16 << 20
"""Most bytes kept of one output or file."""
LINE_BYTES = 64 << 10
"""A longer line is told in pieces."""
CHUNK_BYTES = 64 << 10
"""Bytes per read; the deadline is checked between reads."""

LONGEST_SILENCE = 3600.0
"""Seconds that a socket without a timeout of its own may be silent."""
_LOOK_SECONDS = 0.2
"""How often a read that waits looks at its deadline, and whether the command is cancelled."""


class TooMuchError(InconclusiveError):
    """More came than any good answer has: nothing of it is used."""


class Kept:
    """Bytes as they come. Of more than `limit` the first and the last half of it are kept."""

    def __init__(self, limit: int = TEXT_BYTES) -> None:
        self._half = limit // 2
        self._head, self._tail = bytearray(), bytearray()
        self._came = 0

    def add(self, chunk: bytes) -> None:
        """Take the bytes that came next."""
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


class LineSplitter:
    """Calls `hear` with each line, without its end, as soon as it is whole."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self._begun = b""

    def add(self, chunk: bytes) -> None:
        """Take the bytes that came next; each line that they end is told of."""
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


class Limits:
    """What may be received in one exchange: until `deadline`, and `limit` bytes."""

    def __init__(self, deadline: Deadline, limit: int) -> None:
        self.deadline, self._limit = deadline, limit
        self._received = 0

    def check(self) -> None:
        """Raises InterruptedByUser when cancelled, and what `late` gives after the deadline."""
        check_cancelled()
        if self.deadline.passed:
            raise self.late()

    def add(self, count: int) -> None:
        """Count bytes that came. Raises what `too_much` gives when there are too many."""
        self._received += count
        if self._received > self._limit:
            raise self.too_much()

    def late(self) -> Exception:
        """What is raised after the deadline."""
        return TimeoutError(f"the answer did not end in {self.deadline.seconds:.0f} s")

    def too_much(self) -> Exception:
        """What is raised when more than the limit came."""
        return TooMuchError(f"what answers goes on talking: more than {self._limit} bytes came")


class Watched:
    """A connected socket whose reads keep to limits, asked for at each read; else it is the socket itself."""

    def __init__(self, plain: socket.socket, limits: Callable[[], Limits]) -> None:
        self._plain = plain
        self._limits = limits
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
        """As a socket's. Raises what Limits do, and TimeoutError after the socket's timeout of silence."""
        limits = self._limits()
        silence = Deadline.after(LONGEST_SILENCE if self._silence is None else self._silence)
        try:
            while True:
                limits.check()
                wait = min(_LOOK_SECONDS, silence.left, limits.deadline.left)
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
        limits.add(count)
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

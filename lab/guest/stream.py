"""A command in L1 on this process's own standard streams: input goes in, output comes out as it comes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import threading
import time
from typing import TYPE_CHECKING

from lab import screen
from lab.deadline import Deadline, check_cancelled
from lab.errors import DeadlineError
from lab.guest.login import transport_errors

if TYPE_CHECKING:
    import paramiko

_LOOK_SECONDS = 0.02
_LATE_SECONDS = 1.0
"""How long more output is waited for after the exit status: a background child can hold it open for ever."""
_CHUNK = 1 << 15
_PID_LINE = re.compile(rb"^lab-pid (\d+)\n", re.MULTILINE)
_FIRST = 1 << 16
"""Bytes of standard error in which the line with the process's number is looked for, and kept back."""


class Streaming:
    """One command on one channel. Its bytes are passed on as they are and kept nowhere."""

    def __init__(self, channel: paramiko.Channel, words: list[str]) -> None:
        self.channel = channel
        self.pid: str | None = None
        self._words = words
        self._first: bytearray | None = bytearray()

    def wait(self, line: str, deadline: Deadline) -> int | None:
        """Its exit status, None when it has none (killed, or the connection broke).

        `line` is what the remote shell gets (lab.guest.channel.remote_line). Raises DeadlineError,
        InterruptedByUser, and what lab.screen.write raises.
        """
        channel = self.channel
        try:
            channel.exec_command(line)
            threading.Thread(target=self._feed, name="lab-stdin", daemon=True).start()
            late: Deadline | None = None
            while True:
                # Asked before what has come is taken: nothing comes after it.
                ended = channel.closed or (channel.exit_status_ready() and channel.eof_received)
                moved = self._drain()
                if ended and not moved:
                    break
                if moved or not channel.exit_status_ready():
                    late = None
                else:
                    late = late or Deadline.after(_LATE_SECONDS)
                    if late.passed:
                        break
                if not moved:
                    time.sleep(_LOOK_SECONDS)
                check_cancelled()
                if deadline.passed:
                    raise DeadlineError(
                        f"`{shlex.join(self._words)}` did not end in {deadline.seconds:.0f} s"
                    )
        except transport_errors():
            return None
        finally:
            self._error(b"", last=True)
        return channel.exit_status if channel.exit_status >= 0 else None

    def _feed(self) -> None:
        """Pass standard input on until it ends, or the command does. Runs in a thread of its own.

        The descriptor itself is read: a thread in the middle of a buffered read hinders Python's end.
        """
        try:
            while _may_read() and (chunk := os.read(0, _CHUNK)):
                self.channel.sendall(chunk)
            self.channel.shutdown_write()
        except transport_errors():
            return

    def _drain(self) -> bool:
        """Pass on what has come; whether anything had."""
        moved = False
        if self.channel.recv_ready():
            screen.write(self.channel.recv(_CHUNK))
            moved = True
        if self.channel.recv_stderr_ready():
            self._error(self.channel.recv_stderr(_CHUNK))
            moved = True
        return moved

    def _error(self, chunk: bytes, last: bool = False) -> None:
        """Pass standard error on, without the line in which L1's shell tells its process's number."""
        if self._first is not None:
            self._first += chunk
            told = _PID_LINE.search(self._first)
            if not told and not last and len(self._first) < _FIRST:
                return
            chunk, self._first = bytes(self._first), None
            if told:
                self.pid = told[1].decode()
                chunk = chunk[: told.start()] + chunk[told.end() :]
        if chunk:
            with contextlib.suppress(OSError):  # nobody reads it: that ends no command
                sys.stderr.flush()
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()


def _may_read() -> bool:
    """Whether standard input is ours: the system stops whoever reads a terminal from the background."""
    return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()

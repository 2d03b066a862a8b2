"""Commands in the guest through Fabric, by a runner of lab's own: each is bounded, and can be ended.

Imported late: paramiko and Fabric take a while to load.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paramiko
from fabric.runners import Remote

from lab.core.bounds import CHUNK_BYTES, Kept, LineSplitter
from lab.core.deadline import Deadline, cancelled, check_cancelled
from lab.core.errors import DeadlineError
from lab.guest.login import ConnectionLostError, transport_errors

if TYPE_CHECKING:
    from lab.guest.connection import GuestConnection

WINDOW_BYTES = 16 << 20
"""The most that a server may send on a channel, or hold back, before this side took it."""
_LOOK_SECONDS = 0.02
_CHUNKS = 64
"""Of each stream between two looks at the clock: one that never pauses must not hold the caller."""
_QUIET_SECONDS = 1.0
"""How long more output is waited for after the exit status: a background child can hold it open for ever."""
_ANSWER_SECONDS = 10.0

# `timeout` makes the command's process group (known by the printed pid) and ends it even when this side is
# killed: its time is longer than ours. The locale is set in here: sudo lets none through.
_WRAPPER = 'echo "lab-pid $$" >&2; LC_ALL=C.UTF-8; export LC_ALL; exec timeout -k 5 "$0" "$@"'
_BACKSTOP_SECONDS = 15
_PID_LINE = re.compile(rb"^lab-pid (\d+)\n", re.MULTILINE)
_PID_WITHIN = 64 << 10
"""Bytes of standard error in which that line is looked for, and which are kept back so long."""
_END_GROUP = (  # without `--`, which dash's kill does not know
    'kill -TERM "-$0" || exit 0; n=0; '
    'while [ $n -lt 20 ] && kill -0 "-$0"; do sleep 0.1; n=$((n+1)); done; kill -KILL "-$0"; true'
)


@dataclass(frozen=True)
class GuestCommand:
    """A command, where its input is from, and where its output goes.

    `read` gives at most that many bytes of input: None when there is nothing yet, b"" at the end. `out` and
    `err` take the output piece by piece; what they raise ends the command.
    """

    words: list[str]
    sudo: bool
    deadline: Deadline
    read: Callable[[int], bytes | None]
    out: Callable[[bytes], None]
    err: Callable[[bytes], None]

    def run(self, connection: GuestConnection) -> int:
        """Run it to its end: its exit status, -1 when a signal killed it.

        Raises UnreachableError (it was not begun), ConnectionLostError, DeadlineError, InterruptedByUser, and
        what `out` and `err` raise.
        """
        seconds = str(math.ceil(self.deadline.left) + _BACKSTOP_SECONDS)
        line = shlex.join(["sh", "-c", _WRAPPER, seconds, *self.words])
        # -n: else sudo would take the password that it wants from the command's input.
        run, start = (connection.sudo, "-n -- ") if self.sudo else (connection.run, "exec ")
        status = int(run(start + line, warn=True, guest_command=self).exited)
        if status < 0 and not connection.is_connected:
            raise ConnectionLostError(
                f"the connection to the VM broke while `{shlex.join(self.words)}` ran",
                hint="`invoke lab.status` says whether the VM still runs",
            )
        return status


@contextlib.contextmanager
def _closed_unless_answered(channel: paramiko.Channel, given_up: Callable[[], bool]) -> Iterator[None]:
    """Close the channel once `given_up`, while the block waits for an answer: paramiko has no limit."""
    answered = threading.Event()

    def watch() -> None:
        while not answered.wait(_LOOK_SECONDS):
            if given_up():
                channel.close()
                return

    threading.Thread(target=watch, name="lab-answer", daemon=True).start()
    try:
        yield
    finally:
        answered.set()


class BoundedRunner(Remote):
    """Runs the `guest_command` that is given to Fabric's `run` or `sudo`, in the calling thread.

    Fabric's own has a thread a stream, keeps all that comes, decodes it piece by piece, reads a pipe byte by
    byte, and waits for output as long as any process holds it open.
    """

    context: GuestConnection
    channel: paramiko.Channel

    def run(self, command: str, **options: Any) -> Any:
        self._command: GuestCommand = options.pop("guest_command")
        self._unsent, self._pid = b"", ""
        self._kept_back: bytearray | None = bytearray()
        return super().run(command, **options)  # type: ignore[no-untyped-call]

    def start(self, command: str, *_: Any) -> None:
        self.channel = self.context.channel(self._command.deadline)
        self.channel.settimeout(_ANSWER_SECONDS)
        deadline = self._command.deadline
        with (
            contextlib.suppress(*transport_errors()),  # then the channel is closed
            _closed_unless_answered(self.channel, lambda: deadline.passed or cancelled.is_set()),
        ):
            self.channel.exec_command(command)

    def create_io_threads(self) -> tuple[dict[Any, Any], list[str], list[str]]:
        return {}, [], []  # wait() passes all on

    def wait(self) -> None:
        try:
            self._pass_all()
            self._take_error(b"", last=True)
        except BaseException:
            self.kill()
            raise

    def returncode(self) -> int:
        return self.channel.exit_status  # -1 when there is none: Fabric's waits for one

    def kill(self) -> None:
        """End the command's process group in the guest; best effort, bounded in time."""
        limit = Deadline.after(_ANSWER_SECONDS)
        self._learn_pid(limit)
        # Not by Fabric: this is needed most when everything is to stop, which ends any run.
        words = [*(["sudo", "-n", "--"] if self._command.sudo else []), "sh", "-c", _END_GROUP, self._pid]
        if self._pid and self.context.is_connected:
            with (
                contextlib.suppress(Exception),
                contextlib.closing(self.context.transport.open_session(timeout=_ANSWER_SECONDS)) as channel,
            ):
                with _closed_unless_answered(channel, lambda: limit.passed):
                    channel.exec_command(shlex.join(words))
                channel.status_event.wait(_ANSWER_SECONDS)

    def _learn_pid(self, limit: Deadline) -> None:
        """Wait for the line that names the pid, if it is on its way: nothing else ends the command."""
        channel = self.channel
        with contextlib.suppress(Exception):  # what takes the output may be what broke
            while self._kept_back is not None and not (channel.closed or limit.passed):
                if channel.recv_stderr_ready():
                    self._take_error(channel.recv_stderr(CHUNK_BYTES))
                elif channel.status_event.wait(_LOOK_SECONDS):
                    return

    def stop(self) -> None:
        if hasattr(self, "channel"):  # Fabric's resets the program's handler of SIGWINCH, too
            self.channel.close()

    def _pass_all(self) -> None:
        """Pass input and output on until the command has ended, and its output with it.

        What comes after the exit status may be held up on its way, or be a background child's. The SSH server
        holds at most one window back; more is a child's, and so is what comes after a pause.
        """
        channel, deadline = self.channel, self._command.deadline
        late, quiet = 0, Deadline.after(_QUIET_SECONDS)
        while True:
            has_status = channel.exit_status_ready()  # or is closed
            # Asked before what has come is taken: nothing comes after it.
            complete = channel.closed or (has_status and channel.eof_received)
            self._send()
            size = self._receive()
            check_cancelled()
            if size or not has_status:
                quiet = Deadline.after(_QUIET_SECONDS)
            late += size if has_status else 0
            if (complete and not size) or late > WINDOW_BYTES or quiet.passed or deadline.passed:
                break
            if not size and channel.status_event.wait(_LOOK_SECONDS):
                time.sleep(_LOOK_SECONDS / 4)  # the output's end is close behind the status
        if channel.exit_status < 0 and deadline.passed:
            words = shlex.join(self._command.words)
            raise DeadlineError(f"`{words}` did not end in {deadline.seconds:.0f} s")

    def _send(self) -> None:
        """Send as much input as there is, and as the guest takes."""
        channel = self.channel
        with contextlib.suppress(*transport_errors()):  # a channel that broke is noticed as closed
            for _ in range(_CHUNKS):
                if channel.eof_sent or channel.closed or not channel.send_ready():
                    return
                chunk = self._unsent or self._command.read(CHUNK_BYTES)
                if not chunk:
                    if chunk is not None:
                        channel.shutdown_write()
                    return
                self._unsent = chunk[channel.send(chunk) :]

    def _receive(self) -> int:
        """Pass on what has come; how many bytes that were."""
        channel, size = self.channel, 0
        for ready, receive, take in (
            (channel.recv_ready, channel.recv, self._command.out),
            (channel.recv_stderr_ready, channel.recv_stderr, self._take_error),
        ):
            for _ in range(_CHUNKS):
                if not ready():
                    break
                chunk = receive(CHUNK_BYTES)
                size += len(chunk)
                take(chunk)
        return size

    def _take_error(self, chunk: bytes, last: bool = False) -> None:
        """Pass standard error on, without the line that names the pid, which is noted."""
        if self._kept_back is not None:
            self._kept_back += chunk
            line = _PID_LINE.search(self._kept_back)
            if not line and not last and len(self._kept_back) < _PID_WITHIN:
                return
            chunk, self._kept_back = bytes(self._kept_back), None
            if line:
                self._pid = line[1].decode()
                chunk = chunk[: line.start()] + chunk[line.end() :]
        if chunk:
            self._command.err(chunk)


class Captured(Kept):
    """An output stream that is kept, within bounds; `on_line` is called with each line as it comes."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        super().__init__()
        self._lines = LineSplitter(on_line) if on_line else None

    def add(self, chunk: bytes) -> None:
        super().add(chunk)
        if self._lines:
            self._lines.add(chunk)

    def end(self) -> None:
        """Nothing more comes: a line that was begun is all there is of it."""
        if self._lines:
            self._lines.end()


def read_own_input(size: int) -> bytes | None:
    """This process's standard input, as GuestCommand.read: never waits.

    It has ended for whoever is in the background of a terminal: the system would stop a process that reads.
    """
    try:
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return b""
        return os.read(0, size) if select.select([0], [], [], 0)[0] else None
    except OSError:
        return b""


def write_own_error(chunk: bytes) -> None:
    """Write to this process's standard error as it is. That nobody reads it is no error."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        sys.stderr.buffer.write(chunk)
        sys.stderr.flush()

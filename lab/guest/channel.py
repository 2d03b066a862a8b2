"""One command on one SSH channel: how it is started so that it can be ended, and its output."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.bounds import CHUNK_BYTES, Kept, LineSplitter
from lab.deadline import Deadline, cancelled, check_cancelled
from lab.errors import DeadlineError
from lab.guest.login import transport_errors
from lab.proc import tail

if TYPE_CHECKING:
    import paramiko

_LOOK_SECONDS = 0.02
_CHUNKS = 64
"""Of each stream between two looks at the clock: one that never pauses must not hold the caller."""
_PID = "lab-pid "

# `timeout` makes the command's process group (known by the printed pid) and ends it even
# when this side is killed: its time is longer than ours.
_WRAPPER = 'echo "lab-pid $$" >&2; LC_ALL=C.UTF-8; export LC_ALL; exec timeout -k 5 "$0" "$@"'
_BACKSTOP_SECONDS = 15
STALL_SECONDS = 120.0
_SFTP_LOOK_SECONDS = 0.005
_SFTP_PACKET_BYTES = 256 << 10
"""OpenSSH's own limit, both ways (SFTP_MAX_MSG_LENGTH)."""
_PID_LINE = re.compile(rf"^{_PID}(\d+)\n", re.MULTILINE)
_END_GROUP = (  # without `--`, which dash's kill does not know
    'kill -TERM "-$0" || exit 0; n=0; '
    'while [ $n -lt 20 ] && kill -0 "-$0"; do sleep 0.1; n=$((n+1)); done; kill -KILL "-$0"; true'
)


def remote_line(words: list[str], sudo: bool, deadline: Deadline) -> str:
    """What the remote shell gets to run `words`."""
    seconds = str(math.ceil(deadline.left) + _BACKSTOP_SECONDS)
    return "exec " + shlex.join([*_privilege(sudo), "sh", "-c", _WRAPPER, seconds, *words])


def end_line(pid: str, sudo: bool) -> str:
    """What the remote shell gets to end the group that `remote_line` made."""
    return shlex.join([*_privilege(sudo), "sh", "-c", _END_GROUP, pid])


def sftp_client(channel: paramiko.Channel, deadline: Deadline | None) -> paramiko.SFTPClient:
    """paramiko's, which by itself believes any length, and reads as long as anything comes.

    Its calls raise DeadlineError and InterruptedByUser too, and TimeoutError when nothing comes for
    STALL_SECONDS.
    """
    import paramiko

    class Bounded(paramiko.SFTPClient):
        def _read_all(self, n: int) -> bytes:
            if n > _SFTP_PACKET_BYTES:
                raise paramiko.SSHException(f"the server sends an SFTP packet of {n} bytes")
            out = bytearray()
            while len(out) < n:
                _await_bytes(channel, deadline)
                chunk = channel.recv(n - len(out))
                if not chunk:
                    raise EOFError
                out += chunk
            return bytes(out)

    return Bounded(channel)


def _await_bytes(channel: paramiko.Channel, deadline: Deadline | None) -> None:
    stalled = Deadline.after(STALL_SECONDS)
    while True:
        check_cancelled()
        if deadline is not None and deadline.passed:
            raise DeadlineError(f"the file's transfer did not end in {deadline.seconds:.0f} s")
        if channel.recv_ready() or channel.eof_received or channel.closed:
            return
        if stalled.passed:
            raise TimeoutError
        time.sleep(_SFTP_LOOK_SECONDS)


def _privilege(sudo: bool) -> list[str]:
    return ["sudo", "-n", "--"] if sudo else []


class Running:
    """One command on one channel: sends its input, keeps its output."""

    def __init__(
        self, channel: paramiko.Channel, words: list[str], on_line: Callable[[str], None] | None
    ) -> None:
        self.channel = channel
        self._words = words
        self._out, self._err = Kept(), Kept()
        self._lines: tuple[LineSplitter, ...] = ()
        if on_line is not None:
            tell = on_line

            def hear(line: str) -> None:
                if not line.startswith(_PID):
                    tell(line)

            self._lines = (LineSplitter(hear), LineSplitter(hear))

    @property
    def out(self) -> str:
        return self._out.text

    @property
    def err(self) -> str:
        return _PID_LINE.sub("", self._err.text, count=1)

    @property
    def pid(self) -> str | None:
        match = _PID_LINE.search(self._err.text)
        return match[1] if match else None

    def wait(self, line: str, stdin: bytes, deadline: Deadline) -> int | None:
        """Its exit status, None when it has none (killed, or the connection broke)."""
        channel, unsent = self.channel, memoryview(stdin)
        channel.settimeout(10.0)
        try:
            channel.exec_command(line)
            while not self._ended():
                unsent = self._feed(unsent)
                if not self._drain():
                    time.sleep(_LOOK_SECONDS)
                if cancelled.is_set():
                    check_cancelled()
                if deadline.passed:
                    raise DeadlineError(
                        f"`{shlex.join(self._words)}` did not end in {deadline.seconds:.0f} s",
                        tail=tail(self.out + "\n" + self.err),
                    )
        except transport_errors():
            return None
        while self._drain() and (channel.eof_received or channel.closed):
            check_cancelled()  # without either, a child that was left behind may talk for ever
        for lines in self._lines:
            lines.end()
        return channel.exit_status if channel.exit_status >= 0 else None

    def _ended(self) -> bool:
        """All output came and the status too; a background child may hold the output open."""
        channel = self.channel
        if channel.closed or not channel.exit_status_ready():
            return channel.closed
        if not channel.eof_received:
            until = time.monotonic() + 1.0
            while not (channel.eof_received or channel.closed) and time.monotonic() < until:
                self._drain()
                time.sleep(_LOOK_SECONDS)
        return True

    def _feed(self, unsent: memoryview) -> memoryview:
        channel = self.channel
        while unsent and channel.send_ready() and not channel.closed:
            unsent = unsent[channel.send(bytes(unsent[:CHUNK_BYTES])) :]
        if not unsent and not channel.eof_sent:
            channel.shutdown_write()
        return unsent

    def _drain(self) -> bool:
        """Take of what has come; whether anything had."""
        channel, came = self.channel, False
        streams = (
            (channel.recv_ready, channel.recv, self._out),
            (channel.recv_stderr_ready, channel.recv_stderr, self._err),
        )
        for number, (ready, receive, kept) in enumerate(streams):
            for _ in range(_CHUNKS):
                if not ready():
                    break
                chunk, came = receive(CHUNK_BYTES), True
                kept.add(chunk)
                if self._lines:
                    self._lines[number].add(chunk)
        return came

"""One command on one SSH channel: how it is started so that it can be ended, and its output."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.deadline import Deadline, cancelled, check_cancelled
from lab.errors import DeadlineError
from lab.guest.login import transport_errors
from lab.proc import tail

if TYPE_CHECKING:
    import paramiko

_LOOK_SECONDS = 0.02
_CHUNK = 1 << 16

# `timeout` makes the command's process group (known by the printed pid) and ends it even
# when this side is killed: its time is longer than ours.
_WRAPPER = 'echo "lab-pid $$" >&2; LC_ALL=C.UTF-8; export LC_ALL; exec timeout -k 5 "$0" "$@"'
_BACKSTOP_SECONDS = 15
_PID_LINE = re.compile(r"^lab-pid (\d+)\n", re.MULTILINE)
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


def _privilege(sudo: bool) -> list[str]:
    return ["sudo", "-n", "--"] if sudo else []


class Running:
    """One command on one channel: sends its input, keeps its output."""

    def __init__(
        self, channel: paramiko.Channel, words: list[str], on_line: Callable[[str], None] | None
    ) -> None:
        self.channel = channel
        self._words = words
        self._on_line = on_line
        self._kept = (bytearray(), bytearray())
        self._told = [0, 0]

    @property
    def out(self) -> str:
        return self._kept[0].decode(errors="replace")

    @property
    def err(self) -> str:
        return _PID_LINE.sub("", self._kept[1].decode(errors="replace"), count=1)

    @property
    def pid(self) -> str | None:
        found = _PID_LINE.search(self._kept[1].decode(errors="replace"))
        return found[1] if found else None

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
        self._drain()
        self._tell_lines(final=True)
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
            unsent = unsent[channel.send(bytes(unsent[:_CHUNK])) :]
        if not unsent and not channel.eof_sent:
            channel.shutdown_write()
        return unsent

    def _drain(self) -> bool:
        """Take what has come; whether anything had."""
        before = len(self._kept[0]) + len(self._kept[1])
        while self.channel.recv_ready():
            self._kept[0].extend(self.channel.recv(_CHUNK))
        while self.channel.recv_stderr_ready():
            self._kept[1].extend(self.channel.recv_stderr(_CHUNK))
        grew = len(self._kept[0]) + len(self._kept[1]) > before
        if grew:
            self._tell_lines()
        return grew

    def _tell_lines(self, final: bool = False) -> None:
        if self._on_line is None:
            return
        for number, kept in enumerate(self._kept):
            end = len(kept) if final else kept.rfind(b"\n") + 1
            fresh = bytes(kept[self._told[number] : end]).decode(errors="replace")
            self._told[number] = max(end, self._told[number])
            for text in fresh.splitlines():
                if not text.startswith("lab-pid "):
                    self._on_line(text)

"""The way into L1: one SSH connection, its host key pinned, shared by all threads.

Commands are argument lists, quoted for the remote shell. Every command runs in a process
group of its own, so that a deadline or an interruption really ends it over there too.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from lab.core import screen
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import CommandError, DeadlineError
from lab.core.proc import tail
from lab.engines.protocol import LOOPBACK
from lab.guest import login
from lab.guest.login import ConnectionLostError, UnreachableError
from lab.guest.terms import OWN, AsRoot, Terms

if TYPE_CHECKING:
    from lab.guest.connection import GuestConnection
    from lab.guest.copying import Copy

DEFAULT_SECONDS = 600.0
"""The deadline of a command that was given none: nothing waits for ever on a VM that hangs."""

_KILLED = 255
"""What `ssh` exits with when the command in the guest was killed by a signal."""

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a command in the guest left. `status` is -1 when a signal killed it; `seconds` as seen from here.

    Of a stream of more than 16 MiB the middle is left out, and a line there says so.
    """

    argv: list[str]
    out: str
    err: str
    status: int
    seconds: float


Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Guest:
    """L1 over one SSH connection, opened when first used and again when it dropped.

    Methods may be called from several threads: each has its own channel. They raise
    UnreachableError, AuthRefusedError, HostKeyError or ConnectionLostError (all LabError).
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        *,
        port: int,
        user: str = "lab",
        key: Path,
        known_hosts: Path,
        terms: Terms = OWN,
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self.key = key
        self.known_hosts = known_hosts
        self.terms = terms
        self._lock = threading.RLock()
        self._connection: GuestConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, deadline: Deadline | None = None, banner: login.Banner | None = None) -> GuestConnection:
        """The connection, logged in unless it is. `banner`: a socket whose server has greeted already."""
        with self._lock:
            if self._connection is None or not self._connection.is_connected:
                self.close()
                self._connection = login.connect(
                    self.host,
                    self.port,
                    user=self.user,
                    key=self.key,
                    known_hosts=self.known_hosts,
                    deadline=deadline or Deadline.after(login.LOGIN_SECONDS),
                    banner=banner,
                    reach=self.terms.dial,
                    agent=self.terms.agent,
                )
            return self._connection

    def close(self) -> None:
        """End the connection, if there is one; the next command opens another."""
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(Exception):  # a broken connection may refuse even that
                    self._connection.client.close()
                self._connection = None

    def reconnect(self, deadline: Deadline | None = None) -> None:
        """Log in anew: group membership counts from a login on."""
        with self._lock:
            self.close()
            self.open(deadline)

    def run(
        self,
        argv: Sequence[str],
        *,
        sudo: AsRoot = False,
        check: bool = True,
        deadline: Deadline | None = None,
        stdin: str | bytes = "",
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a command to its end; `on_line` sees each line of its output and error as it comes.

        The end is when its output ends, too, or pauses for a second: a background child may hold it open.
        Raises CommandError on a non-zero status unless `check` is False, DeadlineError (after
        DEFAULT_SECONDS when no deadline is given) and InterruptedByUser: the command is ended then.
        """
        from lab.guest.runner import Captured, GuestCommand

        deadline = deadline or Deadline.after(DEFAULT_SECONDS)
        words = [str(word) for word in argv]
        applied, by_root = self.terms.applied(words, sudo)
        source = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        out, err = Captured(on_line), Captured(on_line)
        started = time.monotonic()
        try:
            command = GuestCommand(applied, by_root, deadline, source.read, out.add, err.add)
            status = self._connected(command.run, deadline)
        except (DeadlineError, ConnectionLostError) as error:
            error.tail = tail(out.text + "\n" + err.text)
            raise
        out.end()
        err.end()
        result = Result(words, out.text, err.text, status, time.monotonic() - started)
        if check and status != 0:
            raise CommandError(words, status, tail=tail(result.out + "\n" + result.err))
        return result

    def stream(self, argv: Sequence[str], deadline: Deadline) -> int:
        """Run a command on this process's own standard streams; its exit status, 255 when it was killed.

        Raises what `run` raises but CommandError, and what lab.core.screen.write raises.
        """
        from lab.guest.runner import GuestCommand, read_own_input, write_own_error

        words, by_root = self.terms.applied(argv, False)
        command = GuestCommand(words, by_root, deadline, read_own_input, screen.write, write_own_error)
        status = self._connected(command.run, deadline)
        return _KILLED if status < 0 else status

    def put(
        self,
        local: Path,
        remote: str,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,
        *,
        resume: bool = False,
    ) -> None:
        """Copy a file to `remote`, which appears only when whole.

        With `resume` a copy of it that was cut short is gone on with, if it is the same so far.
        """
        from lab.guest.copying import SIZE_AND_SHA256, skip_copied

        with local.open("rb") as stream:
            if resume:
                skip_copied(stream, self.run([*SIZE_AND_SHA256, f"{remote}.part"], check=False).out)
            with self._copying(f"copying to {remote}", deadline, on_progress) as copy:
                copy.upload(stream, remote)

    def get(
        self,
        remote: str,
        local: Path,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Copy `remote` to `local`, which appears only when whole: as much of it as there is now."""
        part = local.with_name(f".{local.name}.part")
        try:
            with self._copying(f"copying {remote}", deadline, on_progress) as copy, part.open("wb") as stream:
                copy.download(remote, stream)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def read(self, remote: str, *, sudo: bool = False) -> str:
        """A text file's content. Raises CommandError when it cannot be read."""
        return self.run(["cat", "--", remote], sudo=sudo).out

    def exists(self, remote: str, *, sudo: bool = False) -> bool:
        """Whether there is a file, folder or device of that path."""
        return self.run(["test", "-e", remote], sudo=sudo, check=False).status == 0

    def _connected(self, act: Callable[[GuestConnection], T], deadline: Deadline, again: bool = True) -> T:
        """What `act` gives; a connection that it finds dead (UnreachableError) is replaced, once."""
        connection = self.open(deadline.within(login.LOGIN_SECONDS))
        try:
            return act(connection)
        except UnreachableError:
            check_cancelled()
            if not again or deadline.passed:
                raise
        with self._lock:
            if self._connection is connection:
                self.close()
        return self._connected(act, deadline, again=False)

    def _copying(
        self, what: str, deadline: Deadline | None, progress: Progress | None
    ) -> contextlib.AbstractContextManager[Copy]:
        from lab.guest.copying import copying

        begin = deadline or Deadline.after(DEFAULT_SECONDS)
        channel = self._connected(lambda connection: connection.channel(begin), begin)
        return copying(channel, what, deadline, progress)


def ssh_command(guest: Guest) -> list[str]:
    """The argument list that gives a person a shell there: of `ssh`, the host key pinned as for lab."""
    if guest.terms.command:
        return list(guest.terms.command)
    names = list(login.pinned_keys(guest.known_hosts))
    alias = [] if f"[{guest.host}]:{guest.port}" in names else ["-o", f"HostKeyAlias={names[0]}"]
    return [
        "ssh",
        *("-F", "/dev/null"),
        *("-o", f"IdentityFile={_quoted(guest.key)}"),
        *("-o", "IdentitiesOnly=yes"),
        *("-o", "StrictHostKeyChecking=yes"),
        *("-o", f"UserKnownHostsFile={_quoted(guest.known_hosts)}"),
        *alias,
        *("-p", str(guest.port)),
        f"{guest.user}@{guest.host}",
    ]


def _quoted(path: Path) -> str:
    """The path as ssh's options take it: in quotes, for words apart are several files (macOS has a folder
    `Application Support`), and a per cent sign begins a token (ssh_config, TOKENS).
    """
    return '"{}"'.format(str(path).replace("%", "%%"))

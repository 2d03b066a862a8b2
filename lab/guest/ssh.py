"""The way into L1: one SSH connection, its host key pinned, shared by all threads.

Commands are argument lists, quoted for the remote shell. Every command runs in a process
group of its own, so that a deadline or an interruption really ends it over there too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lab.bounds import TEXT_BYTES
from lab.deadline import Deadline, check_cancelled
from lab.engines.protocol import LOOPBACK
from lab.errors import CommandError, DeadlineError, LabError
from lab.guest import login
from lab.guest.channel import STALL_SECONDS, Running, end_line, remote_line, sftp_client
from lab.guest.login import AuthRefusedError, HostKeyError, UnreachableError
from lab.guest.stream import Streaming
from lab.guest.waiting import wait_for_ssh
from lab.proc import tail

if TYPE_CHECKING:
    import paramiko

__all__ = [
    "AuthRefusedError",
    "ConnectionLostError",
    "Guest",
    "HostKeyError",
    "Result",
    "UnreachableError",
    "ssh_command",
    "wait_for_ssh",
]

DEFAULT_SECONDS = 600.0
"""The deadline of a command that was given none: nothing waits for ever on a VM that hangs."""

_KILLED = 255
"""The exit status of a command that was killed over there: SSH's own word for what has none."""
_CHUNK = 32768
"""As much as one SFTP packet carries."""
_WINDOW = 256 * _CHUNK
"""Bytes of a file that are asked for at once."""


class ConnectionLostError(LabError):
    """The connection broke while a command ran: whether it finished is not known."""


@dataclass(frozen=True)
class Result:
    """What a command in the guest left. `seconds` as seen from here.

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
        self, host: str = LOOPBACK, *, port: int, user: str = "lab", key: Path, known_hosts: Path
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self.key = key
        self.known_hosts = known_hosts
        self._lock = threading.RLock()
        self._connection: Any = None  # fabric.Connection, which has no types

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, deadline: Deadline | None = None, banner: login.Banner | None = None) -> None:
        """Log in, unless logged in. `banner` is a socket on which the server has already spoken."""
        with self._lock:
            if self._connection is not None and self._connection.is_connected:
                return
            self.close()
            self._connection = login.connect(
                self.host,
                self.port,
                user=self.user,
                key=self.key,
                known_hosts=self.known_hosts,
                deadline=deadline or Deadline.after(login.LOGIN_SECONDS),
                banner=banner,
            )

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(Exception):  # a broken connection may refuse even that
                    self._connection.close()
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
        sudo: bool = False,
        check: bool = True,
        deadline: Deadline | None = None,
        stdin: str | bytes = "",
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a command to its end; `on_line` sees each line of its output and error as it comes.

        Raises CommandError on a non-zero status unless `check` is False, DeadlineError (after
        DEFAULT_SECONDS when no deadline is given) and InterruptedByUser: the command is ended then.
        """
        deadline = deadline or Deadline.after(DEFAULT_SECONDS)
        words = [str(word) for word in argv]
        started = time.monotonic()
        running = Running(self._session(deadline), words, on_line)
        try:
            status = running.wait(remote_line(words, sudo, deadline), _as_bytes(stdin), deadline)
        except BaseException:
            self._end(running, sudo)
            raise
        finally:
            running.channel.close()
        result = Result(words, running.out, running.err, -1 if status is None else status, _since(started))
        if status is None and not self._alive():
            raise self._broken(words, tail(result.out + "\n" + result.err))
        if check and status != 0:
            raise CommandError(words, status, tail=tail(result.out + "\n" + result.err))
        return result

    def stream(self, argv: Sequence[str], deadline: Deadline) -> int:
        """Run a command on this process's own standard streams; its exit status, 255 when it was killed.

        Raises what `run` raises but CommandError, and what lab.screen.write raises.
        """
        words = [str(word) for word in argv]
        streaming = Streaming(self._session(deadline), words)
        try:
            status = streaming.wait(remote_line(words, False, deadline), deadline)
        except BaseException:
            self._end(streaming, False)
            raise
        finally:
            streaming.channel.close()
        if status is None and not self._alive():
            raise self._broken(words)
        return _KILLED if status is None else status

    def put(
        self,
        local: Path | io.BufferedIOBase,
        remote: str,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,
        *,
        resume: bool = False,
    ) -> None:
        """Copy a file (or an open binary stream) to `remote`, which appears only when whole.

        With `resume` a copy of it that was cut short is gone on with, if it is the same so far.
        """
        part = f"{remote}.part"
        with contextlib.ExitStack() as stack:
            if isinstance(local, Path):
                stream: Any = stack.enter_context(local.open("rb"))
            else:
                stream = local
            start = stream.tell()
            total = stream.seek(0, io.SEEK_END) - start
            stream.seek(start)
            there = self._same_so_far(stream, part, total) if resume else 0
            sftp = stack.enter_context(self._sftp(deadline, f"copying to {remote}"))
            watch = _watch(on_progress, deadline, remote)
            with sftp.open(part, "ab" if there else "wb") as target:
                target.set_pipelined(True)
                done = there
                while chunk := stream.read(_CHUNK):
                    target.write(chunk)
                    done += len(chunk)
                    watch(done, total)
            if (size := sftp.stat(part).st_size) != total:
                raise LabError(f"copying to {remote} failed: {size} of {total} bytes arrived")
            sftp.posix_rename(part, remote)

    def get(
        self,
        remote: str,
        local: Path,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Copy `remote` to `local`, which appears only when whole: as much of it as there is now."""
        part = local.with_name(f".{local.name}.part")
        watch = _watch(on_progress, deadline, remote)
        try:
            with (
                self._sftp(deadline, f"copying {remote}") as sftp,
                part.open("wb") as stream,
                sftp.open(remote, "rb") as source,
            ):
                size, done = source.stat().st_size or 0, 0
                for chunk in _blocks(source, size):
                    stream.write(chunk)
                    done += len(chunk)
                    watch(done, max(done, size))
                if done < size:
                    raise LabError(f"copying {remote} failed: {done} of {size} bytes arrived")
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def read(self, remote: str, *, sudo: bool = False) -> str:
        """A text file's content. Raises CommandError when it cannot be read."""
        return self.run(["cat", "--", remote], sudo=sudo).out

    def exists(self, remote: str, *, sudo: bool = False) -> bool:
        return self.run(["test", "-e", remote], sudo=sudo, check=False).status == 0

    def _same_so_far(self, stream: Any, part: str, total: int) -> int:
        """How many bytes of `stream` a partial copy holds: the stream is put behind them."""
        start = stream.tell()
        script = 'stat --format %s "$1" && sha256sum "$1"'
        done = self.run(["sh", "-c", script, "look", part], check=False)
        words = done.out.split()
        if done.status != 0 or not 0 < int(words[0]) <= total:
            return 0
        digest, left = hashlib.sha256(), int(words[0])
        while left and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
        if not left and digest.hexdigest() == words[1]:
            return int(words[0])
        stream.seek(start)
        return 0

    def _broken(self, words: list[str], last: str = "") -> ConnectionLostError:
        return ConnectionLostError(
            f"the connection to the VM broke while `{shlex.join(words)}` ran",
            hint="`invoke lab.status` says whether the VM still runs",
            tail=last,
        )

    def _alive(self) -> bool:
        return self._connection is not None and bool(self._connection.is_connected)

    def _transport(self, deadline: Deadline) -> paramiko.Transport:
        with self._lock:
            self.open(deadline.within(login.LOGIN_SECONDS))
            assert self._connection is not None  # noqa: S101 - open() made it
            transport: paramiko.Transport = self._connection.transport
            return transport

    def _session(self, deadline: Deadline) -> paramiko.Channel:
        """A new channel; a connection found dead is opened again, once."""
        for attempt in (1, 2):
            transport = self._transport(deadline)
            try:
                return transport.open_session(timeout=max(1.0, min(login.LOGIN_SECONDS, deadline.left)))
            except login.transport_errors() as error:
                check_cancelled()
                if attempt == 2 or deadline.passed:
                    raise UnreachableError(
                        f"the VM's SSH server opens no channel: {error}",
                        hint="the VM may hang: `invoke lab.logs` shows its console",
                    ) from error
                with self._lock:
                    if self._connection is not None and self._connection.transport is transport:
                        self.close()
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _sftp(self, deadline: Deadline | None, what: str) -> Any:
        channel = self._session(deadline or Deadline.after(DEFAULT_SECONDS))
        try:
            channel.settimeout(STALL_SECONDS)
            channel.invoke_subsystem("sftp")
            with sftp_client(channel, deadline) as sftp:
                yield sftp
        except TimeoutError as error:
            raise DeadlineError(f"{what} stalled for {STALL_SECONDS:.0f} s") from error
        except login.transport_errors() as error:
            raise LabError(f"{what} failed: {error or type(error).__name__}") from error
        finally:
            channel.close()

    def _end(self, running: Running | Streaming, sudo: bool) -> None:
        """End the command's process group in the guest; best effort, bounded in time."""
        if running.pid is None or not self._alive():
            return
        with contextlib.suppress(Exception):
            assert self._connection is not None  # noqa: S101 - _alive() looked
            channel = self._connection.transport.open_session(timeout=10)
            with contextlib.closing(channel):
                channel.exec_command(end_line(running.pid, sudo))
                channel.status_event.wait(10)


def ssh_command(guest: Guest) -> list[str]:
    """The argument list of `ssh` that logs a person in, the host key pinned as for lab."""
    names = login.pinned_names(guest.known_hosts)
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


def _blocks(source: paramiko.SFTPFile, size: int) -> Iterator[bytes]:
    """A file that says to be of that size, until it ends; of one that tells none, as those of /proc, not more
    than TEXT_BYTES.

    Many blocks are asked for at once, and never all: a file may say any size, and paramiko's `prefetch`
    makes a list of its blocks.
    """
    most, at = size or TEXT_BYTES, 0
    while at < most:
        end = min(at + _WINDOW, most) if size else at + 1
        wanted = [(place, min(_CHUNK, most - place)) for place in range(at, end, _CHUNK)]
        blocks = source.readv(wanted) if size else [source.read(wanted[0][1])]
        for (_, length), block in zip(wanted, blocks, strict=False):
            if not block:
                return
            at += len(block)
            yield block
            if len(block) < length:  # then those behind it do not follow on it
                break


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _since(started: float) -> float:
    return time.monotonic() - started


def _watch(on_progress: Progress | None, deadline: Deadline | None, what: str) -> Progress:
    """A transfer's callback that also ends it when the time is up or the user asks."""

    def callback(done: int, total: int) -> None:
        check_cancelled()
        if deadline is not None and deadline.passed:
            raise DeadlineError(f"copying {what} did not end in {deadline.seconds:.0f} s")
        if on_progress is not None:
            on_progress(done, total)

    return callback

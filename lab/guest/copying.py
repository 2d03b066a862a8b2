"""A file's way into the guest and out of it, by SFTP. Imported late: paramiko takes a while to load.

Not by Fabric's put and get: they have no deadline, no progress, no way to go on with a copy that was cut
short, and `get` asks for all blocks of a file at once: slower, and as much memory as it claims to be long.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import paramiko

from lab.core.bounds import TEXT_BYTES
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import DeadlineError, LabError
from lab.guest.login import transport_errors

if TYPE_CHECKING:
    from lab.guest.ssh import Progress

SIZE_AND_SHA256 = ["sh", "-c", 'stat --format %s "$1" && sha256sum "$1"', "look"]
"""With a path behind it: a command whose output `skip_copied` reads."""

_STALL_SECONDS = 120.0
_LOOK_SECONDS = 0.005
_PACKET_BYTES = 256 << 10
"""OpenSSH's own limit, both ways (SFTP_MAX_MSG_LENGTH)."""
_BLOCK = 32768
"""As much as one SFTP packet carries."""
_AHEAD = 256 * _BLOCK
"""Bytes of a file that are asked for at once."""


class Copy(paramiko.SFTPClient):
    """One file's copy over a channel: paramiko's client, which by itself believes any length, and reads as
    long as anything comes.

    Raises DeadlineError, InterruptedByUser, and TimeoutError when nothing comes for _STALL_SECONDS.
    """

    def __init__(
        self, channel: paramiko.Channel, deadline: Deadline | None, progress: Progress | None
    ) -> None:
        self._channel, self._deadline = channel, deadline
        self._progress = progress or (lambda _done, _total: None)
        super().__init__(channel)

    def upload(self, stream: BinaryIO, remote: str) -> None:
        """Copy an open file, from where it is read next, to `remote`, which appears only when whole.

        What is before that is in `remote`.part. Raises LabError.
        """
        part, done, total = f"{remote}.part", stream.tell(), os.fstat(stream.fileno()).st_size
        with self.open(part, "ab" if done else "wb") as target:
            target.set_pipelined(True)
            while chunk := stream.read(_BLOCK):
                target.write(chunk)
                done += len(chunk)
                self._note(done, total)
        if (size := self.stat(part).st_size) != total:
            raise LabError(f"copying to {remote} failed: {size} of {total} bytes arrived")
        self.posix_rename(part, remote)

    def download(self, remote: str, stream: BinaryIO) -> None:
        """Copy `remote`, as much of it as there is now, to a binary stream. Raises LabError."""
        with self.open(remote, "rb") as source:
            size, done = source.stat().st_size or 0, 0
            for block in _blocks(source, size):
                stream.write(block)
                done += len(block)
                self._note(done, max(done, size))
            if done < size:
                raise LabError(f"copying {remote} failed: {done} of {size} bytes arrived")

    def _note(self, done: int, total: int) -> None:
        self._check()
        self._progress(done, total)

    def _check(self) -> None:
        check_cancelled()
        if self._deadline is not None and self._deadline.passed:
            raise DeadlineError(f"the copy did not end in {self._deadline.seconds:.0f} s")

    def _read_all(self, n: int) -> bytes:
        if n > _PACKET_BYTES:
            raise paramiko.SSHException(f"the server sends an SFTP packet of {n} bytes")
        out = bytearray()
        while len(out) < n:
            stalled = Deadline.after(_STALL_SECONDS)
            while not (self._channel.recv_ready() or self._channel.eof_received or self._channel.closed):
                if stalled.passed:
                    raise TimeoutError
                time.sleep(_LOOK_SECONDS)
                self._check()
            self._check()
            chunk = self._channel.recv(n - len(out))
            if not chunk:
                raise EOFError
            out += chunk
        return bytes(out)


@contextlib.contextmanager
def copying(
    channel: paramiko.Channel, what: str, deadline: Deadline | None, progress: Progress | None
) -> Iterator[Copy]:
    """A copy over a new channel, which is closed behind it; `what` names it in messages.

    Raises DeadlineError when it stalls, LabError when it breaks or the server refuses something.
    """
    try:
        channel.settimeout(_STALL_SECONDS)
        channel.invoke_subsystem("sftp")
        with Copy(channel, deadline, progress) as copy:
            yield copy
    except TimeoutError as error:
        raise DeadlineError(f"{what} stalled for {_STALL_SECONDS:.0f} s") from error
    except transport_errors() as error:
        raise LabError(f"{what} failed: {error or type(error).__name__}") from error
    finally:
        channel.close()


def skip_copied(stream: BinaryIO, answer: str) -> None:
    """Put an open file behind what a partial copy has of it: nothing, where that is of another file.

    `answer` is what SIZE_AND_SHA256 printed about the copy: "" where there is none.
    """
    words, digest = answer.split(), hashlib.sha256()
    left = int(words[0]) if len(words) > 1 else 0
    while left and (chunk := stream.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    if left or words[1:2] != [digest.hexdigest()]:
        stream.seek(0)


def _blocks(source: paramiko.SFTPFile, size: int) -> Iterator[bytes]:
    """A file that says to be of that size, until it ends; of one that tells none, as those of /proc, not more
    than TEXT_BYTES.

    Many blocks are asked for at once, and never all: a file may say any size, and paramiko's `prefetch`
    makes a list of its blocks.
    """
    most, at = size or TEXT_BYTES, 0
    while at < most:
        end = min(at + _AHEAD, most) if size else at + 1
        wanted = [(place, min(_BLOCK, most - place)) for place in range(at, end, _BLOCK)]
        blocks = source.readv(wanted) if size else [source.read(wanted[0][1])]
        for (_, length), block in zip(wanted, blocks, strict=False):
            if not block:
                return
            at += len(block)
            yield block
            if len(block) < length:  # then those behind it do not follow on it
                break

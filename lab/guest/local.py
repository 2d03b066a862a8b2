"""This very machine in the place of a VM: the same commands, without SSH."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from lab.core.bounds import CHUNK_BYTES
from lab.core.deadline import Deadline, check_cancelled, pause
from lab.core.errors import CommandError, DeadlineError
from lab.core.proc import passthrough, tail
from lab.guest import login
from lab.guest.ssh import DEFAULT_SECONDS, Guest, Progress, Result
from lab.guest.terms import AsRoot, Terms

_NOWHERE = Path("/dev/null")
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 3.0
_QUIET_SECONDS = 1.0
"""How long output is waited for after the command's end: a background child can hold it open for ever."""
_NOT_FOUND = 127


class LocalGuest(Guest):
    """lab.guest.ssh.Guest of the machine that lab runs on. Nothing is opened, so nothing is lost."""

    def __init__(self, user: str, terms: Terms) -> None:
        super().__init__("this machine", port=0, user=user, key=_NOWHERE, known_hosts=_NOWHERE, terms=terms)

    def open(self, deadline: Deadline | None = None, banner: login.Banner | None = None) -> Any:
        """Nothing to open."""

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
        from lab.guest.runner import Captured

        words, by_root = self.terms.applied(argv, sudo)
        given = stdin.encode() if isinstance(stdin, str) else stdin
        started = time.monotonic()
        out, err = Captured(on_line), Captured(on_line)
        status = _run(
            _as_root(words) if by_root else words,
            given,
            out.add,
            err.add,
            deadline or Deadline.after(DEFAULT_SECONDS),
        )
        out.end()
        err.end()
        result = Result(list(argv), out.text, err.text, status, time.monotonic() - started)
        if check and status != 0:
            raise CommandError(list(argv), status, tail=tail(result.out + "\n" + result.err))
        return result

    def stream(self, argv: Sequence[str], deadline: Deadline) -> int:  # noqa: ARG002
        words, by_root = self.terms.applied(argv, False)
        return passthrough(_as_root(words) if by_root else words)

    def put(
        self,
        local: Path,
        remote: str,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,  # noqa: ARG002
        *,
        resume: bool = False,  # noqa: ARG002
    ) -> None:
        _copy(local, Path(remote), f"{remote}.part", on_progress)

    def get(
        self,
        remote: str,
        local: Path,
        on_progress: Progress | None = None,
        deadline: Deadline | None = None,  # noqa: ARG002
    ) -> None:
        _copy(Path(remote), local, str(local.with_name(f".{local.name}.part")), on_progress)


def _as_root(words: Sequence[str]) -> list[str]:
    return list(words) if os.geteuid() == 0 else ["sudo", "-n", "--", *words]


def _run(
    words: Sequence[str],
    given: bytes,
    out: Callable[[bytes], None],
    err: Callable[[bytes], None],
    deadline: Deadline,
) -> int:
    """Run a command to its end: its exit status, -1 when a signal killed it. Raises as Guest.run does."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            cwd=Path.home(),
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        err(f"{words[0]}: {error.strerror}\n".encode())
        return _NOT_FOUND
    threads = [
        threading.Thread(target=_read, args=(process.stdout, out), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, err), daemon=True),
        threading.Thread(target=_write, args=(process.stdin, given), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        while process.poll() is None:
            if deadline.passed:
                raise DeadlineError(f"`{' '.join(words)}` did not end in {deadline.seconds:.0f} s")
            check_cancelled()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
    except BaseException:
        _end(process, root=words[0] == "sudo")
        raise
    for thread in threads[:2]:
        thread.join(_QUIET_SECONDS)
    return process.returncode if process.returncode >= 0 else -1


def _end(process: subprocess.Popen[bytes], *, root: bool) -> None:
    """End the command's process group: by request, then by force; one of root's by sudo."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if root:
            words = ["sudo", "-n", "--", "kill", f"-{number.value}", f"-{process.pid}"]
            subprocess.run(words, check=False, capture_output=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
            return


def _read(stream: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
    assert stream is not None  # noqa: S101 - Popen was given a pipe
    while chunk := os.read(stream.fileno(), CHUNK_BYTES):
        take(chunk)


def _write(stream: IO[bytes] | None, content: bytes) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.write(content)
            stream.close()


def _copy(source: Path, target: Path, part: str, on_progress: Progress | None) -> None:
    """Copy a file; `target` appears only when whole."""
    total, done = source.stat().st_size, 0
    try:
        with source.open("rb") as reading, Path(part).open("wb") as writing:
            while chunk := reading.read(CHUNK_BYTES):
                writing.write(chunk)
                done += len(chunk)
                pause(0)
                if on_progress:
                    on_progress(done, total)
        shutil.copymode(source, part)
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)

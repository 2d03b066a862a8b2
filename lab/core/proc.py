"""The one door to external commands: argument lists, deadlines, kept output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.core import redact, screen
from lab.core.bounds import CHUNK_BYTES, Kept, LineSplitter
from lab.core.deadline import Deadline, cancelled, check_cancelled
from lab.core.errors import BlockedError, CommandError, DeadlineError
from lab.core.files import open_private

TAIL_LINES = 15
_GRACE_SECONDS = 3.0
_LOG_CHARACTERS = 64 << 20


@dataclass(frozen=True)
class Completed:
    """What a command left: exit status, standard output and error as text, seconds taken.

    A text of more than 16 MiB lacks its middle, and says so there.
    """

    argv: list[str]
    status: int
    out: str
    err: str
    seconds: float


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last `lines` non-empty lines, redacted."""
    # Cut after it was cleaned: half of a secret would be known to nobody.
    return "\n".join(deque((line for line in redact.clean(text).splitlines() if line.strip()), maxlen=lines))


def run(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    stdin: str = "",
) -> Completed:
    """Run a command to its end.

    `env` is added to this process's own; `log` also receives all output as it comes (64 MiB at most);
    `on_line` sees each line of standard error. Raises CommandError on a non-zero status
    (unless `check` is False), DeadlineError, InterruptedByUser, and BlockedError when the
    program is not installed. The command's whole process group is ended in each case.
    """
    words = [str(word) for word in argv]
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise _absent(words[0]) from error

    out, err = Kept(), Kept()
    with contextlib.ExitStack() as stack:
        sink = _Log(stack.enter_context(open_private(log, "a"))) if log else None
        readers = [
            threading.Thread(target=_drain, args=(process.stdout, out, sink, None), daemon=True),
            threading.Thread(target=_drain, args=(process.stderr, err, sink, on_line), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            if stdin and process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(stdin.encode())
                    process.stdin.close()
            _wait(process, words[0], deadline)
        except BaseException:
            end_group(process.pid)
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join(timeout=_GRACE_SECONDS)
    done = Completed(words, process.returncode, out.text, err.text, time.monotonic() - started)
    if check and done.status != 0:
        raise CommandError(
            words, done.status, tail=tail(done.out + "\n" + done.err), evidence=[log] if log else []
        )
    return done


class _Log:
    """A file for all that one command prints, up to a size: it may print for ever."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._room = _LOG_CHARACTERS

    def write(self, cleaned: str) -> None:
        if self._room < 0:
            return
        self._room -= len(cleaned)
        self._stream.write(cleaned if self._room >= 0 else "[lab: the rest is left out]\n")
        self._stream.flush()


def _drain(
    stream: IO[bytes] | None,
    kept: Kept,
    sink: _Log | None,
    on_line: Callable[[str], None] | None,
) -> None:
    assert stream is not None  # noqa: S101 - Popen was given a pipe
    cleaned = redact.Lines()

    def hear(line: str) -> None:
        if sink:
            sink.write(cleaned.add(f"{line}\n"))
        if on_line:
            on_line(line)

    lines = LineSplitter(hear)
    while chunk := os.read(stream.fileno(), CHUNK_BYTES):
        kept.add(chunk)
        lines.add(chunk)
    lines.end()
    if sink:
        sink.write(cleaned.end())


def _wait(process: subprocess.Popen[bytes], name: str, deadline: Deadline | None) -> None:
    while True:
        try:
            process.wait(timeout=0.1)
            return
        except subprocess.TimeoutExpired:
            pass
        if cancelled.is_set():
            check_cancelled()
        if deadline and deadline.passed:
            raise DeadlineError(f"`{name}` did not end in {deadline.seconds:.0f} s")


def end_group(pid: int) -> None:
    """End a process group this process started: first by request, then by force."""
    for number, patience in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 1.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:
                return
            time.sleep(0.05)


def passthrough(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    to_stderr: bool = False,
) -> int:
    """Run a command on this process's own terminal and return its exit status as a shell would.

    For a person's shell, and for tools whose own output is the point. No display of lab's is on the
    terminal meanwhile, and its settings are afterwards what they were. With `to_stderr` its standard
    output goes to standard error, which keeps ours for JSON. `env` is added to this process's own. Raises
    BlockedError when the program is not installed.
    """
    words = [str(word) for word in argv]
    with screen.lent(), _same_terminal():
        sys.stdout.flush()
        try:
            process = subprocess.Popen(
                words, cwd=cwd, env={**os.environ, **(env or {})}, stdout=2 if to_stderr else None
            )
        except FileNotFoundError as error:
            raise _absent(words[0]) from error
        try:
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    return status if status >= 0 else 128 - status


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program of the terminal's: it may have settings of it to put back, so it is asked first."""
    for end in (process.terminate, process.kill):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)
            return
        end()
    process.wait()


@contextlib.contextmanager
def _same_terminal() -> Iterator[None]:
    """Restore the terminal's settings afterwards: a killed program may leave it raw or without echo."""
    blocking: dict[int, bool] = {}
    settings: dict[int, list[Any]] = {}
    for number in (0, 1, 2):
        with contextlib.suppress(termios.error, OSError):
            blocking[number] = os.get_blocking(number)
            settings[number] = termios.tcgetattr(number)
    try:
        yield
    finally:
        for number in blocking:
            with contextlib.suppress(termios.error, OSError):
                os.set_blocking(number, blocking[number])
                # Only in the foreground: the system stops whoever changes a terminal from behind.
                if number in settings and os.tcgetpgrp(number) == os.getpgrp():
                    termios.tcsetattr(number, termios.TCSANOW, settings[number])


def _absent(program: str) -> BlockedError:
    return BlockedError(
        f"`{program}` is not installed",
        hint="`invoke lab.doctor` shows what is missing and how to install it",
    )


def browse(url: str) -> bool:
    """Have the user's own browser show `url`; whether one could be started.

    What it prints goes to standard error, which keeps ours for JSON.
    """
    with screen.lent():  # a browser may be one for the terminal
        sys.stdout.flush()
        kept = os.dup(1)
        try:
            os.dup2(2, 1)
            return webbrowser.open(url)
        finally:
            os.dup2(kept, 1)
            os.close(kept)

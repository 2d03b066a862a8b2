"""Programs that go on when the command that started them has ended, and how they are known again."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from lab.core import files
from lab.core.deadline import pause
from lab.core.errors import BlockedError, LabError

_TOLERANCE_SECONDS = 2.0
"""Start times are computed from the boot time, which moves when the clock is set."""


def start(
    argv: Sequence[str | Path],
    note: Path,
    log: Path,
    *,
    folder: Path,
    environment: Mapping[str, str],
) -> psutil.Process:
    """Start a program in a session of its own; what it prints is added to `log`, who it is stands in `note`.

    Raises BlockedError where the program is not installed.
    """
    words = [str(word) for word in argv]
    with files.open_private(log, "ab") as stream:
        try:
            child = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise BlockedError(f"`{words[0]}` is not installed") from error
    try:
        process = psutil.Process(child.pid)
        files.write_json(note, {"pid": child.pid, "started": process.create_time(), "program": words[0]})
    except BaseException:
        child.kill()
        child.wait()
        raise
    return process


def running(note: Path) -> psutil.Process | None:
    """The program that `note` tells of, if it still runs; None where it ended or was never started."""
    try:
        known = files.read_object(note)
        process = psutil.Process(int(known["pid"]))
        same = abs(process.create_time() - float(known["started"])) <= _TOLERANCE_SECONDS
        if not same or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return process


def end(note: Path, patience: float) -> bool:
    """End the program by request, then by force; whether there was one. Raises LabError if it survives."""
    process = running(note)
    if process is not None:
        _end(note, process, patience)
    note.unlink(missing_ok=True)
    return process is not None


def _end(note: Path, process: psutil.Process, patience: float) -> None:
    for ask, seconds in ((process.terminate, patience), (process.kill, 10.0)):
        with contextlib.suppress(psutil.NoSuchProcess):
            ask()
            process.resume()  # one that is stopped hears no request
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(psutil.Error, ChildProcessError):
                process.wait(0)  # a child of this very process is only gone once it was waited for
            if running(note) is None:
                return
            pause(0.05)
    raise LabError(
        f"process {process.pid} did not end when killed",
        hint=f"`ps -o stat,wchan {process.pid}` tells what it waits for",
        evidence=[note],
    )

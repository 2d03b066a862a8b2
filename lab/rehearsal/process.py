"""Which process is a PC's: by PID, start time and the PC's mark in its arguments, never by name."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from lab import files
from lab.errors import LabError

_START_TOLERANCE = 2.0
"""Seconds: the start time is computed from the boot time, which follows clock adjustments."""
_END_SECONDS = 10.0


def remember(record: Path, pid: int) -> None:
    """Write down in the file `record` which process it is. One that has ended already is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        files.write_json(record, {"pid": pid, "created": psutil.Process(pid).create_time()})


def find(record: Path, mark: str) -> psutil.Process | None:
    """The running process that `record` names, or any with `mark` among its arguments; None without one.

    All are looked through where there is no record: a crash may have come before it was written.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        written = files.read_json(record)
        process = psutil.Process(int(written["pid"]))
        if abs(process.create_time() - float(written["created"])) <= _START_TOLERANCE and bears(
            process, mark
        ):
            return process
    return next((process for process in psutil.process_iter() if bears(process, mark)), None)


def bears(process: psutil.Process, mark: str) -> bool:
    """Whether it runs, and `mark` is one of its arguments."""
    try:
        return mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill(process: psutil.Process, mark: str) -> None:
    """End it by force, if it still bears the mark. Raises LabError when it survives."""
    if not bears(process, mark):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()  # psutil checks the start time again
        try:
            process.wait(_END_SECONDS)
        except psutil.TimeoutExpired as error:
            raise LabError(
                f"process {process.pid} did not end when killed",
                hint=f"`ps -o stat,wchan {process.pid}` tells what it waits for; often it is a dead disk",
            ) from error

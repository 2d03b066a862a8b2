"""Which process is a Bochs of lab's: by PID, start time and the settings file in its arguments."""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import psutil

from lab import files
from lab.errors import LabError

_START_TOLERANCE = 2.0
"""Seconds: the start time is computed from the boot time, which follows clock adjustments."""
_END_SECONDS = 10.0
_EXEC_SECONDS = 1.0
_KERNEL_THREADS = 2
"""PID of kthreadd, the parent of all kernel threads, which have no arguments ever (Linux)."""


def remember(record: Path, pid: int) -> None:
    """Write down in the file `record` which process it is. One that has ended already is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        files.write_json(record, {"pid": pid, "created": psutil.Process(pid).create_time()})


def find(record: Path, settings: str) -> psutil.Process | None:
    """The running Bochs of the file `settings`: the one that `record` names, or any; None without one.

    All processes are looked through where there is no record: a crash may have come before it was written.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        written: Any = files.read_json(record)
        process = psutil.Process(int(written["pid"]))
        meant = abs(process.create_time() - float(written["created"])) <= _START_TOLERANCE
        if meant and is_bochs(process, settings):
            return process
    return next((process for process in psutil.process_iter() if is_bochs(process, settings)), None)


def is_bochs(process: psutil.Process, settings: str) -> bool:
    """Whether it is a running Bochs, or the script that becomes one, whose arguments have `-f settings`."""
    try:
        argv = _arguments(process)
        ours = ("-f", settings) in itertools.pairwise(argv) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return ours and any(Path(word).name.startswith("bochs") for word in argv[:2])


def _arguments(process: psutil.Process) -> list[str]:
    """Of a program that just becomes another one, they are those of the other: in between it has none."""
    argv = process.cmdline()
    until = time.monotonic() + _EXEC_SECONDS
    while not argv and _KERNEL_THREADS not in (process.pid, process.ppid()) and time.monotonic() < until:
        time.sleep(0.01)
        argv = process.cmdline()
    return argv


def kill(process: psutil.Process, settings: str) -> None:
    """End it by force, as Bochs ignores requests; no other process. Raises LabError when it survives."""
    if not is_bochs(process, settings):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()  # psutil checks the start time again
        try:
            process.wait(_END_SECONDS)
        except psutil.TimeoutExpired as error:
            raise survived(process.pid) from error


def survived(pid: int) -> LabError:
    return LabError(
        f"process {pid} did not end when killed",
        hint=f"`ps -o stat,wchan {pid}` tells what it waits for; often it is a dead disk",
    )

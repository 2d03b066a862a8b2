"""Which process emulates a PC of lab's: by PID, start time and the PC's mark in its arguments."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lab.core import files
from lab.core.errors import LabError

_START_TOLERANCE = 2.0
"""Seconds: the start time is computed from the boot time, which follows clock adjustments."""
_END_SECONDS = 10.0
_EXEC_SECONDS = 1.0
_KERNEL_THREADS = 2
"""PID of kthreadd, the parent of all kernel threads, which have no arguments ever (Linux)."""


@dataclass(frozen=True)
class Sign:
    """What the arguments of a PC's process have: the emulator's name, and after it an option with a mark.

    The name need not come first: the program can be a script that becomes the emulator, or one that the
    dynamic loader was told to start.
    """

    option: str
    mark: str
    """lab's own, of this PC alone."""
    program: re.Pattern[str]

    def on(self, process: psutil.Process) -> bool:
        """Whether it is a running process with this sign."""
        try:
            argv = _arguments(process)
            where = next(place for place, pair in enumerate(itertools.pairwise(argv)) if pair == self._pair)
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, StopIteration):
            return False
        return alive and any(self.program.fullmatch(Path(word).name) for word in argv[:where])

    @property
    def _pair(self) -> tuple[str, str]:
        return (self.option, self.mark)


def remember(record: Path, pid: int) -> None:
    """Write down in the file `record` which process it is. One that has ended already is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        files.write_json(record, {"pid": pid, "created": psutil.Process(pid).create_time()})


def find(record: Path, sign: Sign) -> psutil.Process | None:
    """The running process with the sign: the one that `record` names, or any; None without one.

    All processes are looked through where there is no record: a crash may have come before it was written.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        written: Any = files.read_json(record)
        process = psutil.Process(int(written["pid"]))
        meant = abs(process.create_time() - float(written["created"])) <= _START_TOLERANCE
        if meant and sign.on(process):
            return process
    return next((process for process in psutil.process_iter() if sign.on(process)), None)


def _arguments(process: psutil.Process) -> list[str]:
    """Of a program that just becomes another one, they are those of the other: in between it has none."""
    argv = process.cmdline()
    until = time.monotonic() + _EXEC_SECONDS
    while not argv and _KERNEL_THREADS not in (process.pid, process.ppid()) and time.monotonic() < until:
        time.sleep(0.01)
        argv = process.cmdline()
    return argv


def kill(process: psutil.Process, sign: Sign) -> None:
    """End it by force, as Bochs ignores requests; no other process. Raises LabError when it survives."""
    if not sign.on(process):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()  # psutil checks the start time again
        try:
            process.wait(_END_SECONDS)
        except psutil.TimeoutExpired as error:
            raise survived(process.pid) from error


def survived(pid: int) -> LabError:
    """The error that says so of a process that was killed and runs on."""
    return LabError(
        f"process {pid} did not end when killed",
        hint=f"`ps -o stat,wchan {pid}` tells what it waits for; often it is a dead disk",
    )

"""Commands of lab's that are killed hard, at a step that their traces show."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def kill_when(process: subprocess.Popen[str], true: Callable[[], object]) -> None:
    """Kill a command hard, as soon as something is true."""
    try:
        until = time.monotonic() + 300
        while not true():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "that was not reached"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def forwards(lab: Path) -> list[psutil.Process]:
    """The forwards of the lab in that folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words[:1] == ["ssh"] and "-L" in words and any(str(lab) in word for word in words):
            found.append(process)
    return found

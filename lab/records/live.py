"""What commands at work tell, as it happens: one file a process, which `lab.watch` follows.

<state>/working/<pid>-<start>.jsonl, start being the process's in whole Unix seconds. It is gone when the
command ends; what a killed one left is removed by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psutil

from lab.core.files import private_folder
from lab.core.lock import Holder
from lab.core.steps import Event, EventStream, Kind

_LONGEST_WAIT = 2000
"""Events kept until there is a folder to write them into."""
_TOLERANCE = 2
"""Seconds by which two readings of a process's start may differ."""
_LINE_BYTES = 64 << 10


def _folder(state: Path) -> Path:
    return state / "working"


class LiveEvents:
    """A sink that writes this process's events where lab.watch finds them, once lab has a state folder."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._waiting: deque[Event] = deque(maxlen=_LONGEST_WAIT)
        self._stream: EventStream | None = None
        self._path = _folder(state) / f"{os.getpid()}-{psutil.Process().create_time():.0f}.jsonl"

    def __call__(self, event: Event) -> None:
        self._waiting.append(event)
        if self._stream is None:
            if not self._state.is_dir():
                return
            with contextlib.suppress(OSError):  # nobody can follow; the work goes on
                private_folder(self._path.parent)
                _sweep(self._path.parent)
                self._path.unlink(missing_ok=True)  # of a process that had this id before
            self._stream = EventStream(self._path)
        while self._waiting:
            self._stream(self._waiting.popleft())

    def close(self) -> None:
        """The command is over: who follows it has the file open still, and reads it to its end."""
        if self._stream is not None:
            self._stream.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def file_of(state: Path, holder: Holder) -> Path | None:
    """Where the process that holds a lock tells its events; None before it told one."""
    for path in _folder(state).glob(f"{holder.pid}-*.jsonl"):
        start = path.stem.partition("-")[2]
        if start.isdecimal() and (not holder.started or abs(int(start) - holder.started) <= _TOLERANCE):
            return path
    return None


class LiveReader:
    """The events of one file, as they come. It goes on when the file was removed."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._begun = b""

    def new(self) -> Iterator[Event]:
        """The events that came since the last call; a line that is not whole yet comes later."""
        while chunk := self._stream.read(_LINE_BYTES):
            *lines, self._begun = (self._begun + chunk).split(b"\n")
            yield from (event for line in lines if (event := _event(line)))
            self._begun = self._begun[:_LINE_BYTES]

    def close(self) -> None:
        """Read no more."""
        self._stream.close()


def _event(line: bytes) -> Event | None:
    """The event of a line; None for one that is torn, or of a lab that writes other events."""
    try:
        members = json.loads(line)
        event = Event(**{"name": ""} | members)  # a note outside any step has none
        numbers = (event.step, event.parent, event.seconds, event.done or 0, event.total or 0)
        texts = (event.name, event.at, event.text)
        right = all(isinstance(number, int | float) for number in numbers)
        right = right and all(isinstance(text, str) for text in texts) and event.kind in get_args(Kind)
    except (TypeError, ValueError, RecursionError):
        return None
    return event if right else None


def _sweep(folder: Path) -> None:
    """Remove the files of processes that are no more."""
    for path in folder.glob("*-*.jsonl"):
        pid = path.stem.partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)

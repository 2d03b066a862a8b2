"""Step events: the single source of progress, timings and the step log.

A `Steps` is handed to whatever works; sinks (the console, the JSON-lines log) subscribe.
Steps nest, and may run side by side in threads.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import json
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from lab.core import redact
from lab.core.deadline import cancelled
from lab.core.errors import LabError
from lab.core.files import open_private, private_folder

T = TypeVar("T")

Kind = Literal["started", "progress", "note", "finished", "failed"]


@dataclass(frozen=True)
class Event:
    """One event. `at` is UTC ISO 8601, `seconds` since the step began, `parent` 0 at the top."""

    kind: Kind
    step: int
    parent: int
    name: str
    at: str
    seconds: float
    text: str = ""
    done: float | None = None
    total: float | None = None
    informs: bool = False
    """It failed, and nothing depends on that."""

    def as_json(self) -> str:
        """One JSON object on one line; members that say nothing are left out."""
        every = asdict(self).items()
        return json.dumps(
            {key: value for key, value in every if value not in (None, "") and value is not False}
        )


class Sink(Protocol):
    """Hears of every event, one at a time, in the thread that it happens in."""

    def __call__(self, event: Event, /) -> None: ...


_current: contextvars.ContextVar[int] = contextvars.ContextVar("lab_step", default=0)


class Step:
    """A running step: `note` says something, `progress` how far it is (any unit), `result` its end."""

    def __init__(self, steps: Steps, number: int, parent: int, name: str) -> None:
        self._steps = steps
        self.number = number
        self.parent = parent
        self.name = name
        self.result = ""
        self.informs = False
        """If it fails, that only informs."""
        self.started = time.monotonic()

    def note(self, text: str) -> None:
        """Say something while it runs."""
        self._steps.emit(self, "note", text)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far it is; `total` is None where that is not known."""
        self._steps.emit(self, "progress", text, done, total)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started


class Steps:
    """Where steps are announced; every event goes to all `sinks`, its text without secrets."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def subscribe(self, sink: Sink) -> None:
        """Have `sink` hear of every event from now on."""
        with self._lock:
            self._sinks.append(sink)

    def branch(self) -> Steps:
        """Copy with the same sinks; sinks added to the copy see only its events."""
        with self._lock:
            branch = Steps(*self._sinks)
        branch._numbers, branch._lock = self._numbers, self._lock
        return branch

    @contextlib.contextmanager
    def step(self, name: str, text: str = "") -> Iterator[Step]:
        """Announce a step, and its end whichever way it comes."""
        step = self.begin(name, text)
        token = _current.set(step.number)
        try:
            yield step
        except BaseException as error:
            self.emit(step, "failed", error.what if isinstance(error, LabError) else repr(error))
            raise
        else:
            self.emit(step, "finished", step.result)
        finally:
            _current.reset(token)

    def begin(self, name: str, text: str = "", within: Step | None = None) -> Step:
        """Announce a step that runs elsewhere, whose end comes by `emit`; it is in `within`, or in the step
        at work."""
        step = Step(self, next(self._numbers), within.number if within else _current.get(), name)
        self.emit(step, "started", text)
        return step

    def note(self, text: str) -> None:
        """Say something outside any step of one's own."""
        self.emit(Step(self, 0, _current.get(), ""), "note", text)

    def relay(self, event: Event) -> None:
        """Have every sink hear of an event of another process's."""
        with self._lock:
            for sink in self._sinks:
                sink(event)

    def emit(
        self,
        step: Step,
        kind: Kind,
        text: str = "",
        done: float | None = None,
        total: float | None = None,
    ) -> None:
        event = Event(
            kind=kind,
            step=step.number,
            parent=step.parent,
            name=step.name,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=round(step.seconds, 3),
            text=redact.clean(text),
            done=done,
            total=total,
            informs=step.informs and kind == "failed",
        )
        self.relay(event)


class JsonLines:
    """A sink that appends every event but progress to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        if not path.parent.exists():
            private_folder(path.parent)
        self._stream = open_private(path, "a", buffering=1)

    def __call__(self, event: Event) -> None:
        if event.kind != "progress":
            # A full disk must not end the work that is told of: that finds it out itself, if it matters.
            with contextlib.suppress(OSError):
                self._stream.write(event.as_json() + "\n")


class EventStream:
    """A sink that writes every event into a file or a named pipe as it happens, one JSON object a line; or
    into a stream that is open, such as standard error, by its descriptor.

    Of a step's progress it writes one line a second at most. A line has at most LINE_BYTES bytes: a longer
    text is cut. What cannot be written is lost, and the work that is told of goes on: the disk is full,
    nobody reads the pipe, or its reader fell asleep.
    """

    LINE_BYTES = 4096
    """So many bytes go into a pipe together, or not at all (Linux: PIPE_BUF)."""
    _EVERY_SECONDS = 1.0
    _PATIENCE_SECONDS = 1.0
    """How long to wait for a slow reader; after a wait in vain, not again until it has taken a line."""

    def __init__(self, target: Path | int) -> None:
        self._target = target
        self._descriptor: int | None = None
        self._told: dict[int, float] = {}
        """Step to when its progress was written last, on the monotonic clock."""
        self._patience = self._PATIENCE_SECONDS
        self._torn = False

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            now = time.monotonic()
            if now - self._told.get(event.step, -self._EVERY_SECONDS) < self._EVERY_SECONDS:
                return
            self._told[event.step] = now
        elif event.kind in ("finished", "failed"):
            self._told.pop(event.step, None)
        try:
            self._write(self._line(event))
        except OSError:
            self.close()  # whoever reads next gets what comes from then on

    def _line(self, event: Event) -> bytes:
        text, line = event.text, event.as_json()
        while text and len(line) >= self.LINE_BYTES:  # JSON is ASCII here: a character is a byte
            text = text[: len(text) // 2]
            line = replace(event, text=f"{text}…" if text else "").as_json()
        return line.encode() + b"\n"

    def _write(self, line: bytes) -> None:
        if isinstance(self._target, int):
            self._descriptor = self._target
        elif self._descriptor is None:
            # Without O_NONBLOCK, a pipe that nobody reads would hold the work.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
            self._descriptor = os.open(self._target, flags, 0o600)
            # A file still ends with the half of a line; another reader of a pipe has not got it.
            self._torn = self._torn and not stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        rest = b"\n" + line if self._torn else line
        until = time.monotonic() + self._patience
        while rest:
            try:
                if isinstance(self._target, int):  # another's stream waits where its reader sleeps
                    _await_room(self._descriptor, 0.0)
                count = os.write(self._descriptor, rest)
                rest, self._torn = rest[count:], len(rest) > count
            except BlockingIOError:
                try:
                    _await_room(self._descriptor, max(0.0, until - time.monotonic()))
                except BlockingIOError:
                    self._patience = 0.0
                    return
        self._patience = self._PATIENCE_SECONDS

    def close(self) -> None:
        """Let go of the file; the next event opens it anew."""
        if self._descriptor is not None and not isinstance(self._target, int):
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None


def _await_room(descriptor: int, seconds: float) -> None:
    """Raises BlockingIOError where nothing can be written for so long."""
    if not select.select([], [descriptor], [], seconds)[1]:
        raise BlockingIOError


class Background:
    """Work that goes on beside the main thread; `result` waits for one of them.

    Used as a context manager: leaving it cancels what still runs, so nothing outlives the
    command that started it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(thread_name_prefix="lab")
        self._futures: list[Future[Any]] = []

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Begin `work` in a thread of its own, as a part of the step at work here."""
        context = contextvars.copy_context()
        future: Future[T] = self._pool.submit(context.run, work)
        self._futures.append(future)
        return future

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What still runs when the block ends is waited for by nobody any more.
        if kind is not None or any(not future.done() for future in self._futures):
            cancelled.set(self)
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        finally:
            cancelled.clear(self)  # its own: what the user or a budget asked for meanwhile stands

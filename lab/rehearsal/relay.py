"""What the runner in an emulated PC tells over the serial port, shown as steps of our own.

It is the word of a guest, on a line that its kernel writes to as well: what is not understood is passed over,
and what is, is bounded in number and length. Nothing is judged by it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.characters import one_line, printable
from lab.core.errors import InconclusiveError
from lab.core.steps import Step, Steps

_TASK = re.compile(r"lab-task (\d{1,4}) (?:(started)|ended (\d{1,3}))")
_EVENT = "lab-event "
_PANIC = re.compile(r"---\[ end (Kernel panic - not syncing.*?)(?: \]---)?$")
"""Linux's last word of a panic (kernel/panic.c)."""
_TEXT = 400
_MOST_STEPS, _MOST_EVENTS = 2000, 50_000
"""A whole lab.up has some fifty steps."""

_Number = Field(ge=0, lt=1 << 31)


class GuestEvent(BaseModel):
    """An event of lab.core.steps as it comes over the line; what else is in it does not matter."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    kind: Literal["started", "progress", "note", "finished", "failed"]
    step: int = _Number
    parent: int = Field(default=0, ge=0, lt=1 << 31)
    name: str = Field(default="", pattern=r"^[a-z0-9._-]{0,64}$")
    text: str = ""
    done: float | None = None
    total: float | None = None
    informs: bool = False

    @property
    def words(self) -> str:
        """Its text on one line, and not too long."""
        text = one_line(printable(self.text))
        return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


@dataclass(frozen=True)
class TaskSignal:
    """A task of the job began, or ended with `status`. `number` counts from 1."""

    number: int
    status: int | None = None


@dataclass(frozen=True)
class KernelPanic:
    """The PC's Linux panicked, in its own words."""

    words: str


def parse(line: str) -> GuestEvent | TaskSignal | KernelPanic | None:
    """What one line tells; None for the console's other lines. Raises nothing, whatever the line is."""
    if line.startswith(_EVENT):
        try:
            return GuestEvent.model_validate_json(line.removeprefix(_EVENT))
        except ValidationError:
            return None
    if task := _TASK.fullmatch(line.rstrip()):
        return TaskSignal(int(task[1]), None if task[2] else int(task[3]))
    if panic := _PANIC.search(line):
        return KernelPanic(one_line(printable(panic[1]))[:_TEXT])
    return None


class Relay:
    """Shows the job of one PC as steps within `within`: its boot, each task, and the task's own steps.

    `tasks` are the names of the job's tasks in their order; `on_end` is called with the name of each step
    that has ended well.
    """

    BOOT = "pc.boot"

    def __init__(
        self,
        steps: Steps,
        within: Step,
        tasks: Sequence[str],
        on_end: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._steps, self._within, self._tasks, self._on_end = steps, within, tasks, on_end
        self._task: Step | None = None
        self._open: dict[int, Step] = {}
        """The guest's numbers of the steps that run, and ours."""
        self._heard = time.monotonic()
        self._events = self._begun = self._number = 0
        self._boot: Step | None = steps.begin(self.BOOT, within=within)

    @property
    def now(self) -> str:
        """What is going on: the task, and its innermost step."""
        begun = [step.name for step in (self._boot, self._task, *list(self._open.values())) if step]
        return ", ".join(dict.fromkeys([*begun[:1], *begun[-1:]])) or "between two tasks"

    def hear(self, line: str) -> None:
        """Take one line of the serial port. Raises InconclusiveError: its Linux panicked, or started anew."""
        signal = parse(line)
        if isinstance(signal, GuestEvent):
            self._event(signal)
        elif isinstance(signal, TaskSignal) and signal.status is None:
            self._task_begins(signal.number)
        elif isinstance(signal, TaskSignal):
            self._task_ends(signal)
        elif isinstance(signal, KernelPanic):
            raise InconclusiveError(f"the Linux of the emulated PC panicked: {signal.words}")

    def end(self, why: str = "") -> None:
        """Nothing more comes: what still runs was cut short, for that reason if there is one."""
        for step in (*reversed(self._open.values()), self._task, self._boot):
            if step is not None:
                self._steps.emit(step, "failed", why or "its end was not heard")
        self._open.clear()
        self._task = self._boot = None

    def _task_begins(self, number: int) -> None:
        if number <= self._number:
            raise InconclusiveError(f"the emulated PC started anew: its task {number} began twice")
        if number > len(self._tasks):
            return
        self._settle()
        if self._boot is not None:
            self._finish(self._boot)
            self._boot = None
        self._number = number
        self._task = self._steps.begin(self._tasks[number - 1], within=self._within)

    def _task_ends(self, signal: TaskSignal) -> None:
        if self._task is not None and signal.number == self._number:
            self._settle(f"ended with status {signal.status}")

    def _settle(self, text: str = "") -> None:
        """The task at work has ended, and with it what it left open."""
        for step in reversed(self._open.values()):
            self._steps.emit(step, "finished", "its end was not heard")
        self._open.clear()
        if self._task is not None:
            self._finish(self._task, text)
        self._task = None

    def _finish(self, step: Step, text: str = "") -> None:
        self._steps.emit(step, "finished", text)
        self._on_end(step.name)

    def _event(self, event: GuestEvent) -> None:
        self._events += 1
        if self._task is None or self._events > _MOST_EVENTS:
            return
        step = self._open.get(event.step)
        if event.kind == "started":
            self._step_begins(event)
        elif event.kind == "note":
            self._steps.emit(step or self._open.get(event.parent) or self._task, "note", event.words)
        elif step is None:
            return
        elif event.kind == "progress":
            self._steps.emit(step, "progress", event.words, event.done, event.total)
        else:
            del self._open[event.step]
            step.informs = event.informs
            if event.kind == "finished":
                self._finish(step, event.words)
            else:
                self._steps.emit(step, "failed", event.words)

    def _step_begins(self, event: GuestEvent) -> None:
        if event.step in self._open or not event.name or self._begun >= _MOST_STEPS:
            return
        self._begun += 1
        within = self._open.get(event.parent) or self._task
        self._open[event.step] = self._steps.begin(event.name, event.words, within=within)

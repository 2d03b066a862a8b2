"""How a rehearsal usually goes, for who waits: what is to come, and when it is usually over."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.core.steps import Step, Steps
from lab.rehearsal.relay import Relay

_BEAT_SECONDS = 30.0
_MOST_NAMED = 3


@dataclass(frozen=True)
class Milestone:
    """A part of it ends with the step of this name, usually `after` so many seconds from power-on.

    Seconds are this machine's, on two cores, with Debian 12's Bochs and its Haswell.
    """

    step: str
    after: int
    what: str


UP = (
    Milestone(Relay.BOOT, 40, "the PC boots"),
    Milestone("host.engine", 100, "VirtualBox is asked"),
    Milestone("vm.start", 110, "the VM is made and started"),
    Milestone("vm.boot", 470, "the VM boots"),
    Milestone("docker.install", 680, "Docker is installed in it"),
    Milestone("emulator.load", 800, "the container's image is loaded"),
    Milestone("nested.boot", 950, "L2 boots"),
    Milestone("lab.up", 1000, "the evidence is gathered"),
    Milestone("lab.destroy", 1080, "the VM is removed"),
)
"""lab.up and lab.destroy, as in docs/rehearsal.md."""

EXPERIMENT = (
    Milestone(Relay.BOOT, 40, "the PC boots"),
    *(
        Milestone("experiment.trial", 110 + 207 * number, f"VM {number} of 6 is made, looked at and removed")
        for number in range(1, 7)
    ),
    Milestone("theory.experiment", 1360, "the evidence is gathered"),
)
"""theory.experiment with one round, as in docs/rehearsal.md."""


class Course:
    """Where a rehearsal is among its milestones."""

    def __init__(self, milestones: Sequence[Milestone]) -> None:
        self._milestones = list(milestones)

    def passed(self, step: str) -> None:
        """A step of that name ended: it, and all that comes before it, is behind."""
        names = [milestone.step for milestone in self._milestones]
        if step in names:
            del self._milestones[: names.index(step) + 1]

    @property
    def to_come(self) -> str:
        """What is to come, and when all of it is usually over; empty where nothing is known to come."""
        left = self._milestones.copy()  # `passed` may be called meanwhile, in another thread
        if not left:
            return ""
        names = [milestone.what for milestone in left[1 : 1 + _MOST_NAMED]]
        if len(left) > 1 + _MOST_NAMED:
            names.append("more")
        usual = f"usually over after {_minutes(left[-1].after)}"
        return f"then {', '.join(names)}; {usual}" if names else usual


def describe(now: str, seconds: float, course: Course) -> str:
    """A line for who waits."""
    return "; ".join(filter(None, (f"{now}, {_minutes(seconds)} since power-on", course.to_come)))


@contextlib.contextmanager
def beating(
    steps: Steps, step: Step, words_now: Callable[[], str], every: float = _BEAT_SECONDS
) -> Iterator[None]:
    """While the block runs, say how it goes twice a minute, as the step's progress."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every):
            steps.emit(step, "progress", words_now())

    thread = threading.Thread(target=beat, name="rehearsal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

"""How a rehearsal usually goes, for who waits: what is to come, and when it is usually over."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.rehearsal.relay import Relay
from lab.steps import Step, Steps

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
    Milestone(Relay.BOOT, 60, "the PC boots"),
    Milestone("host.engine", 240, "VirtualBox is asked"),
    Milestone("vm.start", 330, "the VM is made and started"),
    Milestone("vm.boot", 540, "the VM boots"),
    Milestone("docker.install", 780, "Docker is installed in it"),
    Milestone("emulator.load", 930, "the container's image is loaded"),
    Milestone("nested.boot", 1080, "L2 boots"),
    Milestone("lab.up", 1200, "the evidence is gathered"),
    Milestone("lab.destroy", 1260, "the VM is removed"),
)
"""lab.up and lab.destroy. An estimate, of a run by hand without lab."""

EXPERIMENT = (
    Milestone(Relay.BOOT, 60, "the PC boots"),
    *(
        Milestone("experiment.trial", 120 + 390 * number, f"VM {number} of 6 is made, looked at and removed")
        for number in range(1, 7)
    ),
    Milestone("theory.experiment", 2520, "the evidence is gathered"),
)
"""theory.experiment with one round. An estimate, of a run by hand without lab."""


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

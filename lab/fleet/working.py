"""A host at work for its fleet: the tunnel and Buildbot's worker, kept running until this is ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.core import lock
from lab.core.deadline import cleaning_up, pause
from lab.core.steps import Step
from lab.fleet import environment, joining, processes
from lab.fleet.joining import Road
from lab.fleet.places import Membership
from lab.workflow.session import Session

_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
_STEADY_SECONDS = 300.0
"""What ran so long and then ended is started again at once."""
_END_SECONDS = {"worker": 160.0, "tunnel": 5.0}
"""The worker ends its night first, which leaves nothing behind."""


@dataclass
class _Kept:
    """A program that is started again whenever it has ended."""

    name: str
    start: Callable[[], object]
    pause: float = _FIRST_PAUSE
    began: float = field(default=float("-inf"))

    def look(self, running: bool, step: Step) -> None:
        now = time.monotonic()
        if running or now - self.began < self.pause:
            return
        if self.began > float("-inf"):
            steady = now - self.began > _STEADY_SECONDS
            self.pause = _FIRST_PAUSE if steady else min(2 * self.pause, _LONGEST_PAUSE)
            step.note(f"the {self.name} ended: it is started again")
        self.began = now
        self.start()


def work(session: Session) -> None:
    """Work for the fleet until somebody ends this: never returns, raises InterruptedByUser.

    BusyError where another process does so already. What one that was killed left running is ended first.
    """
    place = Membership(session.settings.state_dir)
    road = joining.read(place)
    programs = environment.programs(session)
    with lock.hold(place.lock, "fleet.work", "this host's work for the fleet"):
        kept = [_Kept("worker", lambda: _start_worker(place, str(programs / "twistd")))]
        if road.coordinator:
            kept.insert(0, _Kept("tunnel", lambda: _start_tunnel(place, road)))
        try:
            for each in kept:
                processes.end(place.note(each.name), _END_SECONDS[each.name])
            with session.steps.step(
                "fleet.work", f"{road.name}, for {road.coordinator or 'this machine'}"
            ) as step:
                while True:
                    for each in kept:
                        each.look(processes.running(place.note(each.name)) is not None, step)
                    pause(_LOOK_SECONDS)
        finally:
            with cleaning_up():
                for each in reversed(kept):
                    processes.end(place.note(each.name), _END_SECONDS[each.name])


def end(place: Membership) -> None:
    """End what works here for the fleet, whoever started it. Raises BusyError while fleet.work goes on."""
    with lock.hold(place.lock, "fleet.leave", "this host's work for the fleet"):
        for name, seconds in _END_SECONDS.items():
            processes.end(place.note(name), seconds)


def _start_tunnel(place: Membership, road: Road) -> None:
    processes.start(
        joining.tunnel(place, road),
        place.note("tunnel"),
        place.log,
        folder=place.folder,
        environment=os.environ,
    )


def _start_worker(place: Membership, twistd: str) -> None:
    processes.start(
        [twistd, "--nodaemon", "--pidfile=", "--python", str(place.tac)],
        place.note("worker"),
        place.log,
        folder=place.folder,
        environment=os.environ,
    )

"""Nights on the fakes, on lab's own roads or with some of them replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lab.config.model import NightlySection, VmSection
from lab.core import deadline
from lab.core.errors import BlockedError, InterruptedByUser
from lab.nights import clock, night
from lab.tasks.nightly.history import history
from lab.tasks.nightly.run import ROADS
from lab.workflow.session import Reply, Session
from tests.unit.bed import Bed, checked


def session(bed: Bed, vm: VmSection | None = None, **settings: Any) -> Session:
    """A session with these settings of `[nightly]`."""
    return bed.session(nightly=NightlySection(**settings), **({"vm": vm} if vm else {}))


def spend(
    bed: Bed, roads: night.Roads = ROADS, claim: str = "", **settings: Any
) -> tuple[dict[str, Any], int]:
    """A night, as nightly.run/1 has it, and the exit code."""
    reply = night.run(session(bed, **settings), roads, claim)
    return checked(reply)["night"], reply.code


def past(bed: Bed) -> list[dict[str, Any]]:
    """The nights on record, newest first."""
    return checked(history(bed.session()))["nights"]  # type: ignore[no-any-return]


def before_looks(*events: Callable[[], None], roads: night.Roads = ROADS) -> night.Roads:
    """Roads on which these happen in order, one before each look that follows lab.up."""
    coming = iter(events)

    def after_event(look: Callable[[Session, str, str], Reply]) -> Callable[[Session, str, str], Reply]:
        def road(session: Session, name: str, claim: str) -> Reply:
            next(coming, lambda: None)()
            return look(session, name, claim)

        return road

    return replace(roads, validate=after_event(roads.validate), compare=after_event(roads.compare))


def before_comparing(event: Callable[[], None], roads: night.Roads = ROADS) -> night.Roads:
    """Roads on which this happens before the comparison."""
    return replace(roads, compare=before_looks(event, roads=roads).compare)


def stop() -> None:
    """The user ends lab."""
    deadline.cancelled.set()
    raise InterruptedByUser("stopped by SIGTERM")


def spent_budget(bed: Bed, during: str) -> Callable[[float], clock.Budget]:
    """A budget that is spent in the middle of that call of the world's."""
    budget = clock.Budget(600.0)

    def hang() -> None:
        budget.spent = True
        deadline.cancelled.set(budget)
        deadline.check_cancelled()

    bed.world.before[during] = hang
    return lambda _seconds: budget


def blocked(_session: Session, _name: str) -> Reply:
    """A road on which something is missing."""
    raise BlockedError("a port is taken")

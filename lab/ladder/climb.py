"""Climbing: each rung is built (if asked), checked, or blocked by the first rung below that failed."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lab.core import proc, redact, system
from lab.core.deadline import check_cancelled
from lab.core.errors import (
    BlockedError,
    BusyError,
    InconclusiveError,
    InterruptedByUser,
    LabError,
    UsageError,
)
from lab.core.steps import Step, Steps
from lab.ladder.rung import Rung
from lab.ladder.rungs import LADDER
from lab.model.domain import Observation, Outcome, RungFailedError, Status

Check = Callable[[], Observation]
Action = Callable[[], object]

# These are about the command, not about the rung it happened to be on.
_ABOUT_THE_COMMAND = (InterruptedByUser, BusyError, UsageError)


@dataclass
class Climb:
    """The result of a climb: one outcome a rung, and the errors behind those lab could not settle."""

    outcomes: list[Outcome] = field(default_factory=list)
    errors: dict[str, LabError] = field(default_factory=dict)

    @property
    def error(self) -> tuple[str, LabError] | None:
        """The lowest rung that ended in an error, and that error."""
        return next(iter(self.errors.items()), None)


def climb(
    checks: Mapping[str, Check],
    *,
    steps: Steps,
    ensure: Mapping[str, Action] | None = None,
    skip: Mapping[str, str] | None = None,
    informative: Collection[str] = (),
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Climb:
    """Go through all rungs, lowest first, and return one outcome for each.

    `ensure[rung]` builds what the check then looks at; `skip[rung]` is the reason not to look,
    and a rung with neither a check nor a reason is skipped too. The step of a rung in `informative` that
    is seen to fail says that it only informs. Errors become outcomes: BlockedError, and an OSError
    that lab.core.system.explain can explain (a full disk), a blocked rung; RungFailedError a failed one;
    everything else an inconclusive one. All but RungFailedError are kept in `errors`.
    Raises InterruptedByUser, BusyError and UsageError, after `on_outcome` was called for each rung
    settled until then.
    """
    ensure, skip = ensure or {}, skip or {}
    if unknown := (checks.keys() | ensure.keys() | skip.keys()) - set(LADDER.names):
        raise ValueError(f"no such rung: {', '.join(sorted(unknown))}")
    result = Climb()
    for rung in LADDER:
        check_cancelled()
        outcome = _not_tried(rung, checks, skip, result.outcomes)
        if outcome is None:
            outcome, error = _try(
                rung, ensure.get(rung.name), checks[rung.name], steps, rung.name in informative
            )
            if error is not None:
                result.errors[rung.name] = error
        result.outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return result


def _not_tried(
    rung: Rung, checks: Mapping[str, Check], skip: Mapping[str, str], below: list[Outcome]
) -> Outcome | None:
    if rung.name in skip or rung.name not in checks:
        reason = skip.get(rung.name) or "this command does not check it"
        return Outcome(rung.name, Status.SKIPPED, rung.meaning, reason)
    passed = {outcome.rung for outcome in below if outcome.passed}
    # The lowest rung that did not pass has all its own needs met: it is the one at fault.
    at_fault = next((name for name in LADDER.prerequisites(rung.name) if name not in passed), None)
    if at_fault is None:
        return None
    return Outcome(
        rung.name,
        Status.BLOCKED,
        rung.meaning,
        f"not tried: {at_fault} did not pass",
        blocked_by=at_fault,
    )


def _try(
    rung: Rung, build: Action | None, check: Check, steps: Steps, informs: bool
) -> tuple[Outcome, LabError | None]:
    """What came of building and checking it, and the error behind what lab could not settle."""
    started = time.monotonic()
    try:
        with steps.step(rung.name) as step, _failing_informs(step, informs):
            if build is not None:
                build()
            observation = check()
            if not observation.ok:
                raise RungFailedError(observation)
            step.result = observation.observed
    except _ABOUT_THE_COMMAND:
        raise
    except Exception as error:
        # Ctrl-C kills children, and a killed child looks like any failure: it is none.
        check_cancelled()
        explained = error if isinstance(error, LabError) else _plain(error)
        kept = None if isinstance(error, RungFailedError) else explained
        return _outcome_of_error(rung, explained, time.monotonic() - started), kept
    return _outcome_of(rung, Status.PASSED, observation, time.monotonic() - started), None


@contextlib.contextmanager
def _failing_informs(step: Step, informs: bool) -> Iterator[None]:
    """Mark the step as informing where its rung was seen to fail and `informs`."""
    try:
        yield
    except RungFailedError:
        step.informs = informs
        raise


def _plain(error: Exception) -> LabError:
    """An error that is none of lab's, as one that can be printed; one that lab did not foresee says so."""
    if isinstance(error, OSError) and (refused := system.explain(error)):
        return refused
    explained = InconclusiveError(
        f"unexpected {type(error).__name__}: {error}",
        hint="this is a fault of lab, not an observation; please report it",
        tail=proc.tail("".join(traceback.format_exception(error))),
    )
    explained.__cause__ = error
    return explained


def _outcome_of_error(rung: Rung, error: LabError, seconds: float) -> Outcome:
    if isinstance(error, RungFailedError):
        return _outcome_of(rung, Status.FAILED, error.observation, seconds)
    return Outcome(
        rung.name,
        Status.BLOCKED if isinstance(error, BlockedError) else Status.INCONCLUSIVE,
        rung.meaning,
        redact.clean(error.what),
        round(seconds, 3),
        error.evidence,
        redact.clean(error.hint),
    )


def _outcome_of(rung: Rung, status: Status, observation: Observation, seconds: float) -> Outcome:
    return Outcome(
        rung.name,
        status,
        redact.clean(observation.expected),
        redact.clean(observation.observed),
        round(seconds, 3),
        observation.evidence,
        redact.clean(observation.hint),
    )

"""Climbing: the order, what blocks what, and what errors become."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lab.core import deadline, redact
from lab.core.errors import (
    BlockedError,
    BusyError,
    CommandError,
    DeadlineError,
    InterruptedByUser,
    UsageError,
)
from lab.core.steps import Event, Steps
from lab.ladder.climb import Check, Climb, climb
from lab.ladder.report import table
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Observation, Outcome, RungFailedError, Status

NAMES = LADDER.names

GOOD = Observation(True, "that", "this")
BAD = Observation(False, "that", "something else", hint="try harder", evidence=["dmesg.txt"])


def answers(observation: Observation) -> Check:
    return lambda: observation


def raises(error: BaseException) -> Callable[[], Observation]:
    def act() -> Observation:
        raise error

    return act


@pytest.fixture
def all_good() -> dict[str, Check]:
    return dict.fromkeys(NAMES, answers(GOOD))


@pytest.fixture(autouse=True)
def _not_cancelled() -> Iterator[None]:
    yield
    deadline.cancelled.clear()


def only(checks: dict[str, Check], name: str, ensure: Callable[[], None] | None = None) -> Outcome:
    """The outcome of one rung, all others as in `checks`."""
    result = climb(checks, steps=Steps(), ensure={name: ensure} if ensure else {})
    return next(outcome for outcome in result.outcomes if outcome.rung == name)


def test_needs_stand_below() -> None:
    for position, rung in enumerate(LADDER):
        assert set(LADDER.prerequisites(rung.name)) <= set(NAMES[:position])
        assert {need.name for need in rung.needs} <= set(LADDER.prerequisites(rung.name))


FATES = ("pass", "pass", "pass", "fail", "timeout", "absent", "bug", "skip", "unchecked", "ensure-fails")


@given(st.fixed_dictionaries({name: st.sampled_from(FATES) for name in NAMES}))
def test_any_climb(fates: dict[str, str]) -> None:
    ran: list[str] = []
    told: list[Outcome] = []

    def check(name: str, fate: str) -> Check:
        def look() -> Observation:
            ran.append(name)
            if fate in ("timeout", "absent", "bug"):
                raise {
                    "timeout": DeadlineError("late"),
                    "absent": BlockedError("none"),
                    "bug": KeyError("x"),
                }[fate]
            return GOOD if fate == "pass" else BAD

        return look

    result = climb(
        {name: check(name, fate) for name, fate in fates.items() if fate != "unchecked"},
        steps=Steps(),
        ensure={
            name: raises(CommandError(["x"], 1)) for name, fate in fates.items() if fate == "ensure-fails"
        },
        skip={name: "not asked for" for name, fate in fates.items() if fate == "skip"},
        on_outcome=told.append,
    )
    assert told == result.outcomes
    assert [outcome.rung for outcome in result.outcomes] == list(NAMES)
    assert ran == [name for name in NAMES if name in ran]
    passed = {outcome.rung for outcome in result.outcomes if outcome.passed}
    for outcome in result.outcomes:
        name, fate = outcome.rung, fates[outcome.rung]
        missing = [need for need in LADDER.prerequisites(name) if need not in passed]
        if fate in ("skip", "unchecked"):
            assert outcome.status is Status.SKIPPED and name not in ran
        elif missing:
            assert (outcome.status, outcome.blocked_by) == (Status.BLOCKED, missing[0])
            assert name not in ran and name not in result.errors
        else:
            assert outcome.blocked_by is None
            assert outcome.passed == (fate == "pass")
            assert (outcome.status is Status.FAILED) == (fate == "fail")
            assert (outcome.status is Status.INCONCLUSIVE) == (fate in ("timeout", "bug", "ensure-fails"))
            assert (name in ran) == (fate != "ensure-fails")
            assert (name in result.errors) == (fate not in ("pass", "fail"))


def test_what_failed_keeps_what_was_seen(all_good: dict[str, Check]) -> None:
    for look in (answers(BAD), raises(RungFailedError(BAD))):
        outcome = only(all_good | {"guest.kvm": look}, "guest.kvm")
        assert outcome.status is Status.FAILED
        assert (outcome.expected, outcome.observed, outcome.hint) == ("that", "something else", "try harder")
        assert outcome.evidence == ("dmesg.txt",)


def test_building_comes_before_looking_and_only_where_the_way_is_free(all_good: dict[str, Check]) -> None:
    built: list[str] = []
    order: list[str] = []

    def note(to: list[str], what: str) -> Callable[[], None]:
        return lambda: to.append(what)

    def look() -> Observation:
        order.append("look")
        return GOOD

    ensure = {name: note(built, name) for name in NAMES} | {"vm.boot": note(order, "build")}
    climb(all_good | {"vm.boot": look, "guest.cpu": answers(BAD)}, steps=Steps(), ensure=ensure)
    assert order == ["build", "look"]
    assert built == ["host.cpu", "host.engine", "vm.settings", "guest.paravirt", "guest.cpu", "docker.engine"]


def test_an_error_is_kept_with_its_own_words(all_good: dict[str, Check]) -> None:
    absent = BlockedError("no image", hint="fetch one", evidence=["log"])
    result = climb(all_good | {"host.engine": raises(absent)}, steps=Steps())
    assert result.error == ("host.engine", absent)
    outcome = result.outcomes[1]
    assert (outcome.status, outcome.observed, outcome.hint) == (Status.BLOCKED, "no image", "fetch one")
    assert outcome.evidence == ("log",) and outcome.blocked_by is None
    assert Climb().error is None


def test_a_fault_of_lab_is_told_as_one(all_good: dict[str, Check]) -> None:
    bug = ZeroDivisionError("by zero")
    result = climb(all_good | {"nested.boot": raises(bug)}, steps=Steps())
    error = result.errors["nested.boot"]
    assert error.__cause__ is bug and "ZeroDivisionError" in error.tail
    assert "fault of lab" in error.hint


def test_passing_without_an_observation_is_no_pass(all_good: dict[str, Check]) -> None:
    def looks_at_nothing() -> Observation:
        return Observation(True, "that", " ")

    assert only(all_good | {"vm.boot": looks_at_nothing}, "vm.boot").status is Status.INCONCLUSIVE
    assert only(all_good | {"vm.boot": lambda: None}, "vm.boot").status is Status.INCONCLUSIVE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [InterruptedByUser("stop"), BusyError("held"), UsageError("no"), KeyboardInterrupt()]
)
def test_what_is_about_the_command_ends_the_climb(all_good: dict[str, Check], error: BaseException) -> None:
    told: list[Outcome] = []
    with pytest.raises(type(error)):
        climb(all_good | {"vm.boot": raises(error)}, steps=Steps(), on_outcome=told.append)
    assert [outcome.rung for outcome in told] == ["host.cpu", "host.engine", "vm.settings"]


@pytest.mark.parametrize("end", [answers(BAD), raises(CommandError(["qemu"], -2))])
def test_a_child_killed_by_ctrl_c_says_nothing_about_its_rung(all_good: dict[str, Check], end: Check) -> None:
    def interrupted() -> Observation:
        deadline.cancelled.set()
        return end()

    told: list[Outcome] = []
    with pytest.raises(InterruptedByUser):
        climb(all_good | {"guest.kvm": interrupted}, steps=Steps(), on_outcome=told.append)
    assert "guest.kvm" not in {outcome.rung for outcome in told}


def test_steps_show_each_rung_tried_and_how_it_ended(all_good: dict[str, Check]) -> None:
    events: list[Event] = []
    climb(all_good | {"guest.kvm": answers(BAD)}, steps=Steps(events.append))
    ends = {event.name: (event.kind, event.text) for event in events if event.kind != "started"}
    assert ends["vm.boot"] == ("finished", "this")
    assert ends["guest.kvm"] == ("failed", "something else")
    assert "nested.boot" not in ends


def test_a_misspelt_rung_is_refused(all_good: dict[str, Check]) -> None:
    for wrong in ({"ensure": {"guest.kmv": lambda: None}}, {"skip": {"guest.kmv": "why"}}):
        with pytest.raises(ValueError, match=r"guest\.kmv"):
            climb(all_good, steps=Steps(), **wrong)


def test_secrets_do_not_reach_outcomes(all_good: dict[str, Check]) -> None:
    redact.register("hunter2-hunter2")
    secret = Observation(True, "hunter2-hunter2", "key hunter2-hunter2")
    outcome = only(all_good | {"vm.boot": answers(secret)}, "vm.boot")
    assert "hunter2" not in outcome.observed + outcome.expected


def test_the_table_tells_passed_failed_and_unsettled_apart(all_good: dict[str, Check]) -> None:
    checks = all_good | {"guest.kvm": answers(BAD), "guest.paravirt": raises(DeadlineError("[late]"))}
    result = climb(checks, steps=Steps(), skip={"android.boot": "the canary is not Android"})
    console = Console(file=io.StringIO(), width=110)
    console.print(table(result.outcomes, Claim.ANDROID))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    row = {name: next(line for line in lines if name in line.split()) for name in NAMES}
    assert "passed" in row["vm.boot"] and "inconclusive" in row["guest.paravirt"]
    assert "failed" in row["guest.kvm"] and "something else" in row["guest.kvm"]
    assert "[late]" in row["guest.paravirt"]
    assert "blocked" in row["container.kvm"] and "guest.kvm" in row["container.kvm"]
    assert "skipped" in row["android.boot"]
    text = "\n".join(lines)
    assert "expected: that" in text and "hint: try harder" in text

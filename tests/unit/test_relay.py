"""What an emulated PC tells over its serial port: shown as our own steps, and trusted with nothing."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import InconclusiveError
from lab.core.steps import Event, EventStream, Steps
from lab.rehearsal import course, relay
from lab.rehearsal.course import Course, Milestone, beating
from lab.rehearsal.relay import GuestEvent, KernelPanic, Relay, TaskSignal, parse

TASKS = ("lab.doctor", "lab.up")


class Heard:
    """A relay, the events that it made, and the steps that ended well."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended: list[str] = []
        steps = Steps(self.events.append)
        self.outer = steps.begin("rehearsal.pc")
        self.relay = Relay(steps, self.outer, TASKS, self.ended.append)

    def hear(self, *lines: str) -> Heard:
        for line in lines:
            self.relay.hear(line)
        return self

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(event.kind, event.name, event.text) for event in self.events]


def event(kind: str, step: int = 1, **more: Any) -> str:
    return "lab-event " + json.dumps({"kind": kind, "step": step, "at": "x", "seconds": 1.5, **more})


def test_a_guests_steps_become_ours_with_numbers_of_our_own() -> None:
    heard = Heard().hear(
        "[    0.000000] Linux version 6.12",
        "lab-task 1 started",
        event("started", 1, parent=0, name="host.cpu"),
        event("finished", 1, name="host.cpu", text="a CPU"),
        "lab-task 1 ended 0\r",
        "lab-task 2 started",
        event("started", 1, parent=0, name="vm.boot", text="begins"),
        event("started", 2, parent=1, name="docker.install"),
        event("progress", 2, name="docker.install", done=3, total=4, text="unpacking"),
        event("note", 2, text="a word"),
        event("failed", 2, text="no", informs=True),
        event("finished", 1, text="up"),
        "lab-task 2 ended 10",
        "lab-end",
    )
    heard.relay.end()
    assert heard.told == [
        ("started", "rehearsal.pc", ""),
        ("started", "pc.boot", ""),
        ("finished", "pc.boot", ""),
        ("started", "lab.doctor", ""),
        ("started", "host.cpu", ""),
        ("finished", "host.cpu", "a CPU"),
        ("finished", "lab.doctor", "ended with status 0"),
        ("started", "lab.up", ""),
        ("started", "vm.boot", "begins"),
        ("started", "docker.install", ""),
        ("progress", "docker.install", "unpacking"),
        ("note", "docker.install", "a word"),
        ("failed", "docker.install", "no"),
        ("finished", "vm.boot", "up"),
        ("finished", "lab.up", "ended with status 10"),
    ]
    assert heard.ended == ["pc.boot", "host.cpu", "lab.doctor", "vm.boot", "lab.up"]
    numbers = {event.name: (event.step, event.parent) for event in heard.events}
    assert len({step for step, _ in numbers.values()}) == len(numbers)
    assert numbers["docker.install"][1] == numbers["vm.boot"][0]
    assert numbers["vm.boot"][1] == numbers["lab.up"][0]
    assert numbers["lab.up"][1] == numbers["rehearsal.pc"][0]
    amount = next((event.done, event.total) for event in heard.events if event.kind == "progress")
    assert amount == (3, 4)
    assert [event.informs for event in heard.events if event.kind == "failed"] == [True]


def test_what_was_begun_and_never_ended_ends_with_its_task_or_with_the_pc() -> None:
    heard = Heard().hear("lab-task 1 started", event("started", 5, name="host.cpu"), "lab-task 1 ended 0")
    assert heard.told[-2:] == [
        ("finished", "host.cpu", "its end was not heard"),
        ("finished", "lab.doctor", "ended with status 0"),
    ]
    heard.hear("lab-task 2 started", event("started", 5, name="vm.boot"))
    assert heard.relay.now == "lab.up, vm.boot"
    heard.relay.end("Bochs was killed")
    assert heard.told[-2:] == [
        ("failed", "vm.boot", "Bochs was killed"),
        ("failed", "lab.up", "Bochs was killed"),
    ]
    boot = Heard()
    assert boot.relay.now == "pc.boot"
    boot.relay.end("it is late")
    assert boot.told[-1] == ("failed", "pc.boot", "it is late")


def test_a_kernel_that_panicked_and_one_that_started_anew_end_it() -> None:
    panic = "[   12.3] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs ]---"
    assert parse(panic) == KernelPanic("Kernel panic - not syncing: VFS: Unable to mount root fs")
    with pytest.raises(InconclusiveError, match="panicked: Kernel panic - not syncing: VFS"):
        Heard().hear(panic)
    with pytest.raises(InconclusiveError, match="started anew"):
        Heard().hear("lab-task 1 started", "lab-task 1 ended 0", "lab-task 1 started")


@pytest.mark.parametrize(
    "line",
    [
        "lab-event {",
        "lab-event []",
        "lab-event " + "[" * 60_000,
        "lab-event " + '{"a":' * 10_000,
        event("exploded"),
        event("started", -1, name="vm.boot"),
        event("started", 1 << 40, name="vm.boot"),
        event("started", True, name="vm.boot"),
        event("started", 1.5, name="vm.boot"),  # type: ignore[arg-type]
        event("started", name="\x1b[2J"),
        event("started", name="x" * 65),
        event("started", name="Vm Boot"),
        event("started", name=["vm.boot"]),
        event("progress", done=float("nan")),
        event("progress", done=float("inf")),
        event("note", text=7),
        "[    1.0] lab-event " + json.dumps({"kind": "note", "step": 0}),
        "lab-task one started",
        "lab-task 1 started anew",
        "lab-task 99999 started",
        "lab-task 1 ended",
        "lab-task 1 ended 9999",
        "lab-end of it",
    ],
)
def test_what_is_none_of_the_runners_words_is_passed_over(line: str) -> None:
    assert parse(line) is None


def test_the_guest_can_neither_flood_us_nor_write_on_our_terminal() -> None:
    heard = Heard().hear(event("started", name="vm.boot"), "lab-task 3 started", "lab-task 1 ended 0")
    assert len(heard.events) == 2, "before a task there are no steps, and no third task"
    heard.hear("lab-task 1 started", event("started", name="vm.boot", text="a\x1b[2J\nb\u202ec" + "x" * 9999))
    text = heard.events[-1].text
    assert len(text) <= 400 and text.startswith("a\ufffd[2J b\ufffdc") and text.endswith("…")
    for number in range(2, 5000):
        heard.hear(event("started", number, name="vm.boot"), event("finished", number))
    assert sum(each.kind == "started" for each in heard.events) == relay._MOST_STEPS + 3
    for _ in range(60_000):
        heard.hear(event("note", 1, text="again"))
    assert len(heard.events) <= relay._MOST_EVENTS + 10
    heard.hear("lab-task 1 ended 0", "lab-task 2 started", "lab-task 2 ended 0")
    assert heard.ended[-2:] == ["lab.doctor", "lab.up"], "tasks are counted all the same"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["started", "progress", "note", "finished", "failed", "?"]) | JSON,
        "step": st.integers(-1, 6) | JSON,
    },
    optional={
        "parent": st.integers(-1, 6) | JSON,
        "name": st.sampled_from(["vm.boot", "host.cpu", ""]) | JSON,
        "text": st.text(max_size=900) | JSON,
        "done": st.floats() | JSON,
        "total": st.floats() | JSON,
        "informs": st.booleans() | JSON,
        "other": JSON,
    },
).map(lambda found: "lab-event " + json.dumps(found))
TASK_LINES = st.builds(
    lambda number, end: f"lab-task {number} {end}", st.integers(0, 4), st.sampled_from(["started", "ended 0"])
)
LINES = st.lists(EVENTS | TASK_LINES | st.text(max_size=60) | st.sampled_from(["lab-end", "lab-event "]))


@given(LINES)
def test_whatever_comes_our_steps_are_whole(lines: list[str]) -> None:
    heard, why = Heard(), ""
    for line in lines:
        assert parse(line) is None or isinstance(parse(line), GuestEvent | TaskSignal | KernelPanic)
        try:
            heard.relay.hear(line)
        except InconclusiveError as error:
            assert "started anew" in error.what or "panicked" in error.what
            why = error.what
            break
        assert heard.relay.now
    heard.relay.end(why)
    begun: dict[int, Event] = {}
    ended: set[int] = set()
    for each in heard.events:
        assert len(each.text) <= 400 and "\x1b" not in each.text and "\n" not in each.text
        if each.kind == "started":
            assert each.step not in begun and (each.parent in {*begun, 0}) and each.parent not in ended
            begun[each.step] = each
        else:
            assert each.step in begun and each.step not in ended
            ended |= {each.step} if each.kind in ("finished", "failed") else set()
    assert set(begun) - ended == {heard.outer.number}


@given(
    st.lists(st.tuples(st.sampled_from(["note", "progress"]), st.text(max_size=300)), max_size=20),
    st.text(max_size=200),
)
def test_what_lab_writes_in_there_is_understood_out_here(said: list[tuple[str, str]], result: str) -> None:
    """LAB_EVENTS of the inner lab, line by line, as the runner passes them on."""
    lines: list[str] = []
    stream = EventStream.__new__(EventStream)

    def through(each: Event) -> None:
        lines.append("lab-event " + EventStream._line(stream, each).decode().rstrip("\n"))

    with Steps(through).step("vm.boot", "begins") as step:
        for kind, text in said:
            step.note(text) if kind == "note" else step.progress(1, 2, text)
        step.result = result
    heard = Heard().hear("lab-task 1 started", *lines, "lab-task 1 ended 0")
    whole = [each for each in heard.events if each.name == "vm.boot"]
    assert [each.kind for each in whole] == ["started", *(kind for kind, _ in said), "finished"]


# --- the course ----------------------------------------------------------------------------------


def test_the_course_says_what_is_to_come_and_when_it_is_usually_over() -> None:
    way = Course([Milestone(name, 100 * at, f"{name} is done") for at, name in enumerate("abcdef", 1)])
    assert way.to_come == "then b is done, c is done, d is done, more; usually over after 10 min"
    way.passed("nowhere")
    way.passed("b")  # and with it a
    assert way.to_come == "then d is done, e is done, f is done; usually over after 10 min"
    assert course.describe("c, x", 42.0, way).startswith("c, x, 42 s since power-on; then d")
    way.passed("e")
    assert way.to_come == "usually over after 10 min"
    way.passed("f")
    assert course.describe("end", 600.0, way) == "end, 10 min since power-on"


@pytest.mark.parametrize("way", [course.UP, course.EXPERIMENT])
def test_the_milestones_are_in_the_order_of_their_times(way: tuple[Milestone, ...]) -> None:
    assert [each.after for each in way] == sorted({each.after for each in way})


def test_the_heart_beats_while_nothing_else_is_said() -> None:
    events: list[Event] = []
    enough = threading.Event()

    def hear(each: Event) -> None:
        events.append(each)
        if sum(one.kind == "progress" for one in events) >= 3:
            enough.set()

    steps = Steps(hear)
    with steps.step("rehearsal.pc") as step, beating(steps, step, lambda: "still", every=0.01):
        assert enough.wait(10)
    count = len(events)
    enough.wait(0.05)
    assert len(events) == count, "and stops with its block"
    assert {(each.name, each.text) for each in events if each.kind == "progress"} == {
        ("rehearsal.pc", "still")
    }
    assert course._BEAT_SECONDS <= 60

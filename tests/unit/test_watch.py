"""lab.watch: the events of the command at work, as they come, until it ends."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from lab.core import lock
from lab.core.errors import InconclusiveError, UsageError
from lab.core.lock import Holder
from lab.core.steps import Event, Steps
from lab.nights import keeping
from lab.records import live
from lab.tasks.lab.watch import watch
from tests.unit.bed import Bed, checked

ME = Holder(os.getpid(), "", "lab.up", "", psutil.Process().create_time())


def read(path: Path) -> list[str]:
    reader = live.LiveReader(path)
    try:
        return [f"{event.kind} {event.name}" for event in reader.new()]
    finally:
        reader.close()


def test_the_file_is_of_the_process_and_goes_with_it(tmp_path: Path) -> None:
    sink = live.LiveEvents(tmp_path)
    with Steps(sink).step("vm.boot") as step:
        step.note("so far")
        path = live.file_of(tmp_path, ME)
        assert path is not None and path.stat().st_mode & 0o777 == 0o600
        assert read(path) == ["started vm.boot", "note vm.boot"]
        assert live.file_of(tmp_path, Holder(ME.pid, "", "", "", ME.started - 60)) is None, (
            "another had its id"
        )
    reader = live.LiveReader(path)
    sink.close()
    assert live.file_of(tmp_path, ME) is None
    assert len(list(reader.new())) == 3, "who follows it reads it to its end"
    reader.close()


def test_what_came_before_there_was_a_state_folder_is_told_later(tmp_path: Path) -> None:
    state = tmp_path / "state"
    sink = live.LiveEvents(state)
    steps = Steps(sink)
    with steps.step("host.cpu"):
        assert not state.exists(), "a command that makes nothing makes no folder"
    state.mkdir()
    steps.note("here")
    path = live.file_of(state, ME)
    assert path is not None and read(path) == ["started host.cpu", "finished host.cpu", "note "]
    sink.close()


def test_what_a_killed_command_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "working" / "999999999-1.jsonl"
    left.parent.mkdir()
    left.write_text("{}\n")
    sink = live.LiveEvents(tmp_path)
    Steps(sink).note("x")
    assert not left.exists()
    sink.close()


def test_a_folder_that_cannot_be_made_ends_no_work(tmp_path: Path) -> None:
    (tmp_path / "working").write_text("a file")
    sink = live.LiveEvents(tmp_path)
    Steps(sink).note("x")
    sink.close()


def test_a_line_that_is_torn_or_strange_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "file"
    good = Event("note", 1, 0, "vm.boot", "2026-01-01T00:00:00+00:00", 0.0, "text").as_json()
    strange = [
        '{"kind": "exploded"}',
        "[]",
        '{"kind": "note", "step": "1"}',
        "\xff",
        good.replace('1, "p', '[], "p'),
    ]
    path.write_text("\n".join([*strange, good, good[:20]]))
    reader = live.LiveReader(path)
    assert [event.text for event in reader.new()] == ["text"]
    with path.open("a") as stream:
        stream.write(good[20:] + "\n")
    assert [event.text for event in reader.new()] == ["text"], "the rest of a line comes later"
    reader.close()


def test_nobody_at_work(bed: Bed) -> None:
    bed.session().store.place("default")
    assert checked(watch(bed.session(), "default")) == {
        "schema": "lab.watch/1",
        "lab": "default",
        "holder": None,
        "events": [],
    }
    with pytest.raises(UsageError, match="there is no lab other"):
        watch(bed.session(), "other")
    assert checked(watch(bed.session(), keeping.NAME))["holder"] is None, "no night needs to have been"


def at_work(bed: Bed, path: Path, verb: str, begun: threading.Event, end: threading.Event) -> None:
    """A command that holds a lock, has a step that goes on, and another that fails."""
    state = bed.session().settings.state_dir
    sink = live.LiveEvents(state)
    steps = Steps(sink)
    with lock.hold(path, verb, "it"), steps.step("vm.boot"):
        begun.set()
        end.wait(10)
        for number in range(3):
            steps.note(f"{number}")
        try:
            with steps.step("docker.engine"):
                raise UsageError("no room")
        except UsageError:
            pass
    sink.close()


@pytest.mark.parametrize("name", ["default", keeping.NAME])
def test_every_event_of_the_command_is_shown_and_kept_until_it_ends(bed: Bed, name: str) -> None:
    session = bed.session()
    file = session.store.place(name).lock_file if name == "default" else keeping.lock_file(session)
    begun, end = threading.Event(), threading.Event()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if event.name == "vm.boot":
            end.set()  # it is heard of while the work goes on

    session.steps.subscribe(hear)
    work = threading.Thread(target=at_work, args=(bed, file, "lab.up", begun, end))
    work.start()
    begun.wait(10)
    document = checked(watch(session, name))
    work.join()
    assert document["holder"]["verb"] == "lab.up" and document["holder"]["pid"] == os.getpid()
    assert [(event["kind"], event["name"], event["text"]) for event in document["events"]] == [
        ("started", "vm.boot", ""),
        *(("note", "", str(number)) for number in range(3)),
        ("started", "docker.engine", ""),
        ("failed", "docker.engine", "no room"),
        ("finished", "vm.boot", ""),
    ]
    assert [event.name for event in heard[1:]] == [event["name"] for event in document["events"]]


def test_a_holder_on_another_machine_is_not_waited_for(bed: Bed) -> None:
    lab = bed.session().store.place("default")
    elsewhere = {"pid": 1, "host": "elsewhere", "verb": "lab.up", "since": "2026-01-01"}
    began = time.monotonic()
    with lock.hold(lab.lock_file, "lab.up", "it"):
        lab.lock_file.with_name("lock.holder").write_text(json.dumps(elsewhere))
        with pytest.raises(InconclusiveError, match="not known here"):
            watch(bed.session(), "default")
    assert time.monotonic() - began < 5

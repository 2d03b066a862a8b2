"""LAB_EVENTS: every event of the work in a file or a named pipe, and no work that waits for its reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cli import perform
from lab.config.loading import PROJECT
from lab.core import files
from lab.core import steps as module
from lab.core.steps import Event, EventStream, Steps
from lab.images import cache


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def work(*sinks: EventStream) -> None:
    steps = Steps(*sinks)
    with steps.step("outer") as outer:
        with steps.step("inner", "begins") as inner:
            inner.progress(1, 4, "a quarter")
            inner.note("so far")
            inner.result = "good"
        outer.result = "all"


def test_every_event_is_a_line(tmp_path: Path) -> None:
    target = tmp_path / "events"
    target.write_text('{"kind": "an earlier one"}\n')
    work(EventStream(target))
    _, *found = read(target)
    assert [(one["kind"], one.get("name"), one.get("text", "")) for one in found] == [
        ("started", "outer", ""),
        ("started", "inner", "begins"),
        ("progress", "inner", "a quarter"),
        ("note", "inner", "so far"),
        ("finished", "inner", "good"),
        ("finished", "outer", "all"),
    ]
    assert (found[2]["done"], found[2]["total"], found[2]["parent"]) == (1, 4, found[0]["step"])


def test_a_new_file_is_its_users_alone(tmp_path: Path) -> None:
    work(EventStream(tmp_path / "events"))
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o600


def test_progress_is_one_line_a_second_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, now = tmp_path / "events", [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    steps = Steps(EventStream(target))
    with steps.step("one") as one, steps.step("other") as other:
        for number in range(30):
            one.progress(number)
            other.progress(number)
            now[0] += 0.125
    said = [(row["name"], row["done"]) for row in read(target) if row["kind"] == "progress"]
    assert said == [(name, number) for number in (0, 8, 16, 24) for name in ("one", "other")]


@given(st.text(max_size=3000))
def test_a_line_is_short_enough_for_a_pipe_and_still_json(text: str) -> None:
    event = Event("note", 1, 0, "name", "2026-01-01T00:00:00+00:00", 0.0, text * 3)
    line = EventStream(Path("/nowhere"))._line(event)
    assert len(line) <= 4096 and line.count(b"\n") == 1
    told = json.loads(line).get("text", "")
    if len(event.as_json()) < EventStream.LINE_BYTES:
        assert told == text * 3
    else:
        assert told.endswith("…") and len(told) > 1 and (text * 3).startswith(told.removesuffix("…"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_does_not_end_the_work() -> None:
    work(EventStream(Path("/dev/full")))


def test_what_is_no_file_does_not_end_the_work(tmp_path: Path) -> None:
    work(EventStream(tmp_path))
    work(EventStream(tmp_path / "absent" / "events"))


def test_a_pipe_gives_its_reader_what_comes_while_it_reads(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stream = EventStream(pipe)
    work(stream)  # nobody reads: lost, and nothing waits
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    work(stream)
    heard = os.read(reading, 1 << 16).splitlines()
    assert [json.loads(line)["kind"] for line in heard][0::5] == ["started", "finished"]
    os.close(reading)
    work(stream)  # it went away
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    work(stream)
    assert len(os.read(reading, 1 << 16).splitlines()) == 6
    os.close(reading)


def test_a_reader_that_sleeps_costs_a_second_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    steps, began = Steps(EventStream(pipe)), time.monotonic()
    with steps.step("talks") as step:
        for _ in range(100):
            step.note("x" * 3000)
    assert time.monotonic() - began < 5
    whole = b""
    while True:
        try:
            whole += os.read(reading, 1 << 16)
        except BlockingIOError:
            break
    assert all(json.loads(line) for line in whole.splitlines())
    with steps.step("again"):
        pass
    assert [json.loads(line)["name"] for line in os.read(reading, 1 << 16).splitlines()] == ["again"] * 2
    os.close(reading)


def test_a_reader_that_is_only_slow_gets_all(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []

    def follow() -> None:
        with pipe.open() as stream:
            for line in stream:
                time.sleep(0.005)
                heard.append(json.loads(line)["text"])

    reader = threading.Thread(target=follow)
    reader.start()
    stream = EventStream(pipe)
    steps = Steps(stream)
    until = time.monotonic() + 10
    while stream._descriptor is None and time.monotonic() < until:  # it must have opened the pipe
        steps.note("begin")
    for number in range(100):
        steps.note(f"{number} {'x' * 2000}")
    stream.close()
    reader.join(20)
    assert [text.split()[0] for text in heard if text != "begin"] == [str(number) for number in range(100)]


def cached(tmp_path: Path) -> Path:
    """A cache with one image in it."""
    work_folder = tmp_path / "cache" / "images" / "canary-1"
    work_folder.mkdir(parents=True)
    (work_folder / "image.tar").write_bytes(b"an image")
    manifest = cache.Manifest(
        id="canary-1",
        kind="canary",
        name="canary",
        file="image.tar",
        format="oci",
        bytes=8,
        sha256=files.sha256(work_folder / "image.tar"),
        created=datetime.now(UTC),
    )
    cache.seal(work_folder, manifest)
    return tmp_path / "cache"


def test_a_task_writes_what_the_variable_names(tmp_path: Path) -> None:
    """Relative to where the user stands, and not one of lab's settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    env |= {"LAB_EVENTS": "events", "LAB_CWD": str(tmp_path), "LAB_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [Path(sys.executable).parent / "invoke", "image.verify", "--json"],
        env=env | {"LAB_CACHE_DIR": str(cached(tmp_path))},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [(one["kind"], one["name"]) for one in read(tmp_path / "events")] == [
        ("started", "image.verify"),
        ("finished", "image.verify"),
    ]


def test_a_stream_that_is_open_gets_them_and_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "events").open("wb") as stream:
        target = EventStream(stream.fileno())
        work(target)
        target.close()
        os.write(stream.fileno(), b"{}\n")
    assert len(read(tmp_path / "events")) == 7


def test_a_sleeping_reader_of_a_blocking_stream_holds_no_work() -> None:
    reading, writing = os.pipe()
    began = time.monotonic()
    steps = Steps(EventStream(writing))
    for _ in range(60):
        steps.note("x" * 3000)
    assert time.monotonic() - began < 5
    os.set_blocking(reading, False)
    assert all(json.loads(line) for line in os.read(reading, 1 << 20).splitlines())
    os.close(reading)
    os.close(writing)


def test_the_flag_puts_events_in_the_place_of_progress_and_errors_among_them(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    env |= {"LAB_CWD": str(tmp_path), "LAB_STATE_DIR": str(tmp_path / "state")}
    env |= {"LAB_CACHE_DIR": str(cached(tmp_path))}
    invoke = Path(sys.executable).parent / "invoke"

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [invoke, *words], env=env, cwd=PROJECT, capture_output=True, text=True, timeout=60
        )

    done = ran("image.verify", "--json", "--events")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["kind"], one["name"]) for one in told] == [
        ("started", "image.verify"),
        ("finished", "image.verify"),
    ]
    assert json.loads(done.stdout)["schema"] == "image.action/1"
    refused = ran("lab.halt", "--events")
    assert json.loads(refused.stderr)["kind"] == "error" and refused.returncode == 2
    assert "there is no lab default" in json.loads(refused.stderr)["what"]


def test_the_flag_may_name_a_file_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_CWD", str(tmp_path))
    monkeypatch.setenv("LAB_EVENTS", "both")
    assert perform._events(True) and len(perform._events("both")) == 1
    work(*perform._events("here"))
    assert len(read(tmp_path / "here")) == len(read(tmp_path / "both")) == 6

"""Running things: external commands, steps side by side, evidence, secrets."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline as clock
from lab.core import files, proc, redact
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BlockedError, CommandError, DeadlineError, InterruptedByUser, LabError
from lab.core.steps import Background, Event, JsonLines, Steps
from lab.nights.clock import Budget
from lab.records.evidence import Run, runs


@pytest.fixture(autouse=True)
def _not_cancelled():  # type: ignore[no-untyped-def]
    yield
    clock.cancelled.clear()


_FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def _gone(pid: int) -> bool:
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_a_deadline_ends_the_whole_family(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(DeadlineError):
        proc.run([sys.executable, "-c", _FAMILY, note], deadline=Deadline.after(2))
    assert _gone(int(note.read_text()))


def test_cancelling_ends_a_command_in_another_thread(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    threading.Timer(1.5, clock.cancelled.set).start()
    with pytest.raises(InterruptedByUser):
        proc.run([sys.executable, "-c", _FAMILY, note])
    assert _gone(int(note.read_text()))


def test_a_failure_carries_status_tail_and_log_without_secrets(tmp_path: Path) -> None:
    redact.register("hunter2hunter2")
    log = tmp_path / "log"
    script = "import sys; print('out'); print('password hunter2hunter2', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError) as failed:
        proc.run([sys.executable, "-c", script], log=log)
    assert failed.value.status == 3
    assert "[redacted]" in failed.value.tail
    assert "hunter2hunter2" not in failed.value.tail + log.read_text()


def test_a_program_that_is_not_there_is_a_missing_prerequisite() -> None:
    with pytest.raises(BlockedError, match="not installed"):
        proc.run(["no-such-program-anywhere"])


def test_a_chatty_browser_leaves_standard_output_alone(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho Opening $1 in existing session.\n")
    browser.chmod(0o755)
    program = "from lab.core import proc; print(proc.browse('http://127.0.0.1:1/'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "Opening http://127.0.0.1:1/ in existing session.\n")


def test_poll_tells_the_last_obstacle() -> None:
    def never() -> None:
        raise NotYet("the door is shut")

    with pytest.raises(DeadlineError, match="the door is shut"):
        poll(never, Deadline.after(0.05), "entry", every=0.01)


def test_steps_nest_across_threads_and_failures_are_told() -> None:
    events: list[Event] = []
    steps = Steps(events.append)

    def work() -> None:
        with steps.step("inner"):
            pass

    with pytest.raises(LabError), steps.step("outer"), Background() as background:
        background.start(work).result()
        raise LabError("it broke")
    named = {(event.kind, event.name): event for event in events}
    assert named["started", "inner"].parent == named["started", "outer"].step
    assert named["failed", "outer"].text == "it broke"


def test_an_error_ends_what_runs_beside_it_and_clears_the_switch() -> None:
    started = threading.Event()

    def wait_for_ever() -> None:
        started.set()
        clock.pause(60)

    with pytest.raises(ValueError, match="first"), Background() as background:
        background.start(wait_for_ever)
        started.wait(5)
        raise ValueError("first")
    assert not clock.cancelled.is_set()


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.write_atomic(target, "old")
    with pytest.raises(TypeError):
        files.write_atomic(target, 5)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_build_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.building(tmp_path / "image") as work:
        (work / "disk").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_evidence_names_what_is_missing_and_hides_keys(tmp_path: Path) -> None:
    run = Run(tmp_path, "default", "up")
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"

    def broken() -> str:
        raise LabError("the guest does not answer")

    kept = run.collect({"good.txt": lambda: f"before\n{key}\nafter", "bad.txt": broken})
    assert kept == ["good.txt"]
    assert (run.path / "good.txt").read_text() == "before\n[redacted]\nafter"
    assert "bad.txt: the guest does not answer" in (run.path / "missing.txt").read_text()
    assert runs(tmp_path, "default") == [run.path]


def test_evidence_on_a_full_disk_says_which_file_had_no_room(tmp_path: Path) -> None:
    run = Run(tmp_path, "default", "up")
    (run.path / "missing.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        run.collect({"absent.log": lambda: tmp_path / "absent.log"})
    assert caught.value.filename == str(run.path / "missing.txt")


def test_a_step_log_on_a_full_disk_ends_no_work() -> None:
    steps = Steps(JsonLines(Path("/dev/full")))
    with steps.step("work") as step:
        step.note("goes on")


def test_a_password_in_an_address_is_masked() -> None:
    assert (
        redact.clean("HTTP_PROXY=http://me:secret@proxy:3128/") == "HTTP_PROXY=http://[redacted]@proxy:3128/"
    )
    for plain in ("http://127.0.0.1:5000/a@b", "https://docs/a:b", "registry/image:tag@sha256:12", "a@b:c"):
        assert redact.clean(plain) == plain


def test_the_step_log_is_json_lines(tmp_path: Path) -> None:
    steps = Steps(JsonLines(tmp_path / "steps.jsonl"))
    with steps.step("one") as step:
        step.progress(1, 2)
        step.note("so far")
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["started", "note", "finished"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_and_toml_of_people_are_read_with_a_byte_order_mark_too(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.json").write_text(f'{mark}{{"ü": 1}}', encoding="utf-8")
    (tmp_path / "a.toml").write_text(f"{mark}ü = 1\n".replace("ü", '"ü"'), encoding="utf-8")
    assert files.read_json(tmp_path / "a.json") == files.read_toml(tmp_path / "a.toml") == {"ü": 1}
    (tmp_path / "a.json").write_text(mark + "[" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        files.read_json(tmp_path / "a.json")


def test_a_key_in_the_output_of_a_command_is_in_no_log_and_in_no_tail(tmp_path: Path) -> None:
    """It comes in lines, of which none but the first and the last says what it is."""
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *["MIIEvQIBADANBgkqhkiG9w0B" * 3] * 20])
    key += "\n-----END PRIVATE KEY-----"
    log = tmp_path / "log"
    script = f"import sys; print({key!r}); print('after'); sys.exit(3)"
    with pytest.raises(CommandError) as failed:
        proc.run([sys.executable, "-c", script], log=log)
    assert failed.value.tail == "[redacted]\nafter"
    assert log.read_text() == "[redacted]\nafter\n"
    assert proc.tail(key, lines=3) == "[redacted]"


def test_what_the_user_asked_while_background_work_ended_stands() -> None:
    started = threading.Event()

    def wait_for_ever() -> None:
        started.set()
        with contextlib.suppress(InterruptedByUser):
            clock.pause(60)
        clock.cancelled.set()  # as Ctrl-C does, or a budget that is spent, in just that moment

    with pytest.raises(ValueError, match="first"), Background() as background:
        background.start(wait_for_ever)
        started.wait(5)
        raise ValueError("first")
    assert clock.cancelled.is_set()


def test_a_budget_that_is_spent_while_background_work_ends_stays_spent() -> None:
    entered = threading.Event()

    def go_on(budget: Budget) -> None:
        entered.set()
        while not budget.spent:
            time.sleep(0.01)

    with Budget(0.2) as budget:
        with pytest.raises(ValueError, match="first"), Background() as background:
            background.start(lambda: go_on(budget))
            entered.wait(5)
            raise ValueError("first")
        with pytest.raises(InterruptedByUser):
            clock.check_cancelled()
    assert not clock.cancelled.is_set()


def test_a_budget_takes_back_its_own_asking_and_not_the_users() -> None:
    with Budget(0.01):
        assert clock.cancelled.wait(5)
        clock.cancelled.set()
    assert clock.cancelled.is_set()


def test_a_second_interruption_is_heard_while_cleaning_up() -> None:
    clock.cancelled.set()
    with clock.cleaning_up():
        clock.check_cancelled()
        clock.cancelled.set()
        with pytest.raises(InterruptedByUser):
            clock.check_cancelled()
    assert clock.cancelled.is_set()


@given(st.lists(st.tuples(st.sampled_from(["set", "clear", "enter", "leave"]), st.sampled_from("abc"))))
def test_nobody_takes_back_what_another_asked_for(operations: list[tuple[str, str]]) -> None:
    """Against a model: who asks, and, for each `ignored` block around, whom it passes over."""
    switch, blocks = clock.Cancellation(), []
    asking: set[str] = set()
    passed: list[set[str]] = []
    for verb, who in operations:
        if verb == "set":
            switch.set(who)
            asking.add(who)
            for over in passed:
                over.discard(who)
        elif verb == "clear":
            switch.clear(who)
            asking.discard(who)
            for over in passed:
                over.discard(who)
        elif verb == "enter":
            blocks.append(switch.ignored())
            blocks[-1].__enter__()
            passed.append(asking - set().union(*passed))
        elif blocks:
            blocks.pop().__exit__(None, None, None)
            passed.pop()
        assert switch.is_set() is bool(asking - set().union(*passed))
        assert all(switch.asked_by(each) is (each in asking) for each in "abc")


def test_a_signal_that_comes_in_the_middle_of_a_wait_does_not_lock_up() -> None:
    """The handler asks from within whatever the main thread does with the switch just then."""
    script = (
        "import signal, sys\n"
        "from lab.core import deadline\n"
        "signal.signal(signal.SIGALRM, lambda *_: deadline.cancelled.set())\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n"
        "for _ in range(20000):\n"
        "    deadline.cancelled.wait(0.0), deadline.cancelled.clear(), deadline.cancelled.set()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0

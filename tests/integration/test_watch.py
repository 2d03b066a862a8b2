"""lab.watch and --events between real processes: followed from another terminal, killed while followed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.config.loading import PROJECT

WORK = """
import sys, time
from lab.cli.perform import perform
from lab.workflow.session import Reply

def command(session):
    with session.store.making("default", "lab.up") as lab, session.steps.step("vm.boot") as step:
        for number in range(200):
            step.note(f"note {number}")
            time.sleep(0.1)
            if (lab.folder / "enough").exists():
                step.result = "booted"
                (lab.folder / "enough").unlink()
                break
    return Reply()

perform(command, events=True)
"""
INVOKE = [Path(sys.executable).parent / "invoke"]


def env(state: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return kept | {"LAB_STATE_DIR": str(state), "LAB_CWD": str(state.parent), "PYTHONPATH": str(PROJECT)}


def until(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("killed", [False, True])
def test_a_command_is_followed_to_its_end_from_another_process(tmp_path: Path, killed: bool) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with (tmp_path / "err").open("w") as err:
        work = subprocess.Popen([sys.executable, "-c", WORK], env=env(state), cwd=PROJECT, stderr=err)
    try:
        until(lambda: list((state / "working").glob("*.jsonl")))
        with (tmp_path / "live").open("w") as live_file:
            watching = subprocess.Popen(
                [*INVOKE, "lab.watch", "default", "--json", "--events"],
                env=env(state),
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=live_file,
                text=True,
            )
        until(lambda: len(lines(tmp_path / "live")) > 3)
        assert work.poll() is None, "it is heard of while it works"
        if killed:
            work.send_signal(signal.SIGKILL)
        else:
            (state / "labs" / "default" / "enough").write_text("")
        out, _ = watching.communicate(timeout=60)
    finally:
        work.kill()
        work.wait()
    document = json.loads(out)
    live = lines(tmp_path / "live")
    assert "is at work since" in live[0]["text"]
    assert [event["text"] for event in document["events"][1:3]] == ["note 0", "note 1"]
    assert [event.get("text", "") for event in live[1:]] == [event["text"] for event in document["events"]]
    last = document["events"][-1]
    assert last["kind"] == ("note" if killed else "finished") and watching.returncode == 0
    told = lines(tmp_path / "err")
    assert [event["text"] for event in told[1:3]] == ["note 0", "note 1"], "--events: nothing but events"
    assert len(list((state / "working").glob("*.jsonl"))) == int(killed)

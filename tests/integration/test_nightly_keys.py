"""A key between real processes: two at once are one night, and one that is killed in the midst has a word."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab.config.loading import PROJECT

KEY = "2026-12-01/a"
INVOKE = [Path(sys.executable).parent / "invoke"]


def env(state: Path, qemu: Path) -> dict[str, str]:
    """A night that ends as soon as it looks at that QEMU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return kept | {
        "LAB_STATE_DIR": str(state),
        "LAB_CACHE_DIR": str(state.parent / "cache"),
        "LAB_ENGINE": "qemu",
        "LAB_QEMU__BINARY": str(qemu),
        "LAB_EMULATOR__KIND": "canary",
        "LAB_INSTALL": "never",
        "LAB_CWD": str(state.parent),
        "PYTHONPATH": str(PROJECT),
    }


def begin(where: dict[str, str], *words: str) -> subprocess.Popen[str]:
    argv = [*INVOKE, *words, "--json"]
    return subprocess.Popen(
        argv, cwd=PROJECT, env=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def answer(process: subprocess.Popen[str], code: int) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return json.loads(out)  # type: ignore[no-any-return]


def test_two_at_once_are_one_night_that_is_carried_once(tmp_path: Path) -> None:
    here = env(tmp_path / "state", tmp_path / "no-qemu")
    both = [begin(here, "nightly.run", "--key", KEY) for _ in range(2)]
    first, second = (answer(each, 11)["night"] for each in both)
    assert first == second
    assert (first["verdict"], first["key"]) == ("blocked", KEY)
    file = tmp_path / "a.night.tar.gz"
    answer(begin(here, "nightly.export", KEY, "--to", str(file)), 0)
    there = env(tmp_path / "elsewhere", tmp_path / "no-qemu")
    both = [begin(there, "nightly.import", str(file)) for _ in range(2)]
    states = sorted(answer(each, 0)["nights"][0]["state"] for each in both)
    assert states == ["imported", "known"]
    (kept,) = answer(begin(there, "nightly.history"), 0)["nights"]
    assert (kept["uuid"], kept["host"], kept["verdict"]) == (first["uuid"], first["host"], "blocked")


def running(database: Path) -> str:
    """The uuid of the night that is on record as running; empty where there is none."""
    if not database.exists():
        return ""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database)) as past:
        row = past.execute("SELECT uuid FROM nights WHERE state = 'running'").fetchone()
        return str(row[0]) if row else ""
    return ""


def test_one_that_is_killed_in_the_midst_is_inconclusive_and_is_returned_so(tmp_path: Path) -> None:
    here = env(tmp_path / "state", tmp_path / "no-qemu")
    process = begin(here, "nightly.run", "--key", KEY)
    end = time.monotonic() + 60
    while not (uuid := running(tmp_path / "state" / "history.db")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    night = answer(begin(here, "nightly.run", "--key", KEY), 12)["night"]
    assert (night["uuid"], night["verdict"]) == (uuid, "inconclusive")
    assert "its command was killed" in night["reason"]
    assert Path(night["report"]).is_file()
    assert not list((tmp_path / "state" / "labs").glob("nightly*"))

"""A fleet by the tasks a person runs: a coordinator, two hosts, a real night on each in its turn."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.host.ports import free_port
from tests.e2e.conftest import Lab, lab_environment

pytestmark = pytest.mark.timeout(3600)

FLEET = """
at = ""
port = {port}
[[host]]
name = "first"
tags = ["first"]
[[host]]
name = "second"
tags = ["second"]
[[cell]]
name = "on-first"
tags = ["first"]
settings = {{ nightly = {{ runs = 1, compare = false }} }}
[[cell]]
name = "on-second"
tags = ["second"]
settings = {{ nightly = {{ runs = 1, compare = false }} }}
[[cell]]
name = "no-engine"
tags = ["second"]
settings = {{ engine = "qemu", qemu = {{ binary = "no-such-qemu" }}, nightly = {{ runs = 1 }} }}
"""


@dataclass
class Team:
    """The coordinator, and what its hosts are run by."""

    desk: Lab
    hosts: dict[str, subprocess.Popen[str]]

    def entry(self, cell: str) -> dict[str, Any]:
        """What the matrix has of a cell in the newest night."""
        night = self.desk.json("fleet.matrix")["nights"][0]
        return next(entry for entry in night["entries"] if entry["cell"] == cell)

    def word_of(self, cell: str, seconds: float) -> dict[str, Any]:
        """Ask for a night of the cell, and wait for its word."""
        self.desk.json("fleet.run", "--cell", cell)
        end = time.monotonic() + seconds
        while (entry := self.entry(cell))["state"] == "open":
            assert time.monotonic() < end, self.desk.run("fleet.status").out
            time.sleep(2.0)
        return entry


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    folder = Path(tempfile.mkdtemp(prefix="lab-fleet-"))
    port = free_port(19600)
    (folder / "fleet.toml").write_text(FLEET.format(port=port))
    desk = Lab(folder / "desk", lab_environment(folder / "desk"))
    made = Team(desk, {})
    try:
        desk.json("fleet.up", "--file", str(folder / "fleet.toml"))
        for name in ("first", "second"):
            state = folder / name
            host = replace(desk, state=state, env=lab_environment(state))
            password = str(folder / "desk" / "fleet" / "master" / "passwords" / name)
            host.json("fleet.join", name, "--port", str(port), "--password", password, "--no-install")
            made.hosts[name] = host.start("fleet.work")
        yield made
    finally:
        for process in made.hosts.values():
            process.terminate()
            process.communicate(timeout=200)
        desk.run("fleet.down")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_host_without_what_a_cell_needs_is_never_green(team: Team) -> None:
    entry = team.word_of("no-engine", 300)
    assert (entry["verdict"], entry["host"]) == ("blocked", "second"), entry
    assert "no-such-qemu" in entry["word"]


def test_each_host_runs_a_real_lab_in_its_turn(team: Team) -> None:
    for cell, host in (("on-first", "first"), ("on-second", "second")):
        entry = team.word_of(cell, 1500)
        assert (entry["verdict"], entry["claim"], entry["host"]) == ("confirmed", "nesting", host), entry
        assert Path(entry["report"]).is_file()
    nights = team.desk.json("nightly.history")["nights"]
    assert len({night["host"] for night in nights}) == 2
    state = {host["name"]: host["state"] for host in team.desk.json("fleet.status")["hosts"]}
    assert state == {"first": "connected", "second": "connected"}

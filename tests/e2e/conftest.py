"""One lab for the whole tier, brought up by the very command a user runs, in a state folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import schema

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """What a task left: exit status, its JSON document if it printed one, standard error."""

    status: int
    document: dict[str, Any]
    out: str
    err: str


@dataclass
class Lab:
    """Runs lab's tasks as a user does."""

    state: Path
    env: dict[str, str]
    root: Path = ROOT

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "bin" / "invoke"), *words],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, timeout: float = 1500) -> Answer:
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Answer(process.returncode, _json(out), out, err)

    def json(self, task: str, *words: str, status: int = 0, timeout: float = 1500) -> dict[str, Any]:
        """Run a task with --json, check its exit status and its document against its schema."""
        dashes = words.index("--") if "--" in words else len(words)
        answer = self.run(task, "--json", *words[:dashes], *words[dashes:], timeout=timeout)
        assert answer.status == status, f"{task} ended with {answer.status}\n{answer.out}\n{answer.err}"
        schema.validate(answer.document)
        return answer.document


def _json(out: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        return {}
    return found


def show(request: pytest.FixtureRequest, table: list[str]) -> None:
    """Print a table into the tests' output, where nobody captures it."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(table))


def lab_environment(state: Path) -> dict[str, str]:
    """The environment of a lab of the tests: of LAB_* only what is said here."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LAB_")},
        "LAB_STATE_DIR": str(state),
        "LAB_ENGINE": "qemu",
        # The image that can be built anywhere Debian's archive is: the same chain on every machine.
        "LAB_IMAGE": "debian-13",
        # Nobody listens there: no test asks a registry of the world for Android.
        "LAB_EMULATOR__REGISTRY": "127.0.0.1:9",
    }
    if cache := os.environ.get("LAB_CACHE_DIR"):
        env["LAB_CACHE_DIR"] = cache
    return env


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A state folder in a short path (a unix socket's is limited), the user's own image cache."""
    state = Path(tempfile.mkdtemp(prefix="lab-e2e-"))
    made = Lab(state, lab_environment(state))
    yield made
    for row in json.loads(made.run("lab.list", "--json").out)["labs"]:
        made.run("lab.destroy", "--purge", "--name", row["name"])
    shutil.rmtree(state, ignore_errors=True)

"""The job of a test fleet's host: lab's own night, with its key, its record and its export, on fakes.

What `bin/invoke` is on a host. In the host's folder, `seconds` says how long a night's first run takes,
and `jobs.log` has a line for everything it was called for.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab.nights import night
from lab.tasks.nightly.export import export
from lab.tasks.nightly.run import ROADS
from lab.workflow.session import Reply, Session
from tests.unit.bed import Bed
from tests.unit.fakes import TCG
from tests.unit.nights import session


def main(task: str, *words: str) -> int:
    folder = Path(os.environ["LAB_STATE_DIR"]).parent
    bed = Bed(folder, pytest.MonkeyPatch())

    def log(text: str) -> None:
        with (folder / "jobs.log").open("a") as stream:
            stream.write(f"{text}\n")

    def up(task_session: Session, name: str) -> Reply:
        log(f"began {key}")
        time.sleep(float((folder / "seconds").read_text()))
        return ROADS.up(task_session, name)

    if task == "nightly.run":
        assert words[0] == "--key" and words[2] == "--json", words
        key = words[1]
        log(f"called {key}")
        if key.endswith("/refuted"):
            bed.world.l2_next = TCG
        reply = night.run(session(bed, runs=1, compare=False), replace(ROADS, up=up), key=key)
        return reply.code
    assert task == "nightly.export" and words[1] == "--to", (task, words)
    os.environ["LAB_CWD"] = str(Path.cwd())
    return export(bed.session(), words[0], words[2]).code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

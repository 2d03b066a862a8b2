"""Rehearsals as their user starts them, for the tiers that look at what comes of one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import schema
from tests.e2e.conftest import Lab, lab_environment

SECONDS = 5400.0


def task(document: dict[str, Any], name: str) -> dict[str, Any]:
    """What a rehearsal's document says of one of the tasks that were run in the PC."""
    return next(row for row in document["tasks"] if row["words"][0] == name)


def rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


@contextmanager
def rehearsed(tier: str, lines: list[str], *words: str, status: int) -> Iterator[dict[str, Any]]:
    """The document of `theory.rehearse` with those words, which is to end with `status`.

    Its evidence is moved to a folder that stays; `lines` get what is printed at the tier's end.
    """
    kept = Path(tempfile.mkdtemp(prefix=f"lab-{tier}-"))
    lines.append(f"evidence: {kept}")
    state = Path(tempfile.mkdtemp(prefix="lab-e2e-"))
    lab = Lab(state, lab_environment(state))
    try:
        answer = lab.run("theory.rehearse", "--json", *words, timeout=SECONDS)
        document = answer.document
        (kept / "rehearse.json").write_text(json.dumps(document, indent=2))
        (kept / "rehearse.err").write_text(answer.err)
        for rung in document.get("rungs", []):
            lines.append(
                f"{rung['rung']:<15} {rung['status']:<8} {rung['seconds']:7.1f} s  {rung['observed']}"
            )
        lines.append(f"theory.rehearse: exit code {answer.status}")
        assert answer.status == status, answer.err[-6000:]
        schema.validate(document)
        assert list((state / "rehearsals").iterdir()) == [], "nothing of the PC is left"
        yield document
    finally:
        if (state / "evidence").is_dir():
            shutil.copytree(state / "evidence", kept / "evidence")
        shutil.rmtree(state)

"""A session in which a rehearsal's images are there and its emulated PC is a script."""

from __future__ import annotations

import io
import json
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.config import Settings
from lab.config.model import RehearsalSection
from lab.core.steps import Event, Steps
from lab.core.tell import Terminal
from lab.ladder.climb import Climb
from lab.ladder.report import document
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import Cell, Claim, Host, Nesting, Outcome, Status
from lab.rehearsal.image import SystemImage
from lab.tasks.theory.rehearse import RehearsalTools, rehearse
from lab.workflow.factories import Factories
from lab.workflow.session import Session
from tests import schema
from tests.unit.bed import host
from tests.unit.fakepc import NAME, FakePcs

AT = datetime(2026, 12, 1, 3, 4, 5, tzinfo=UTC)
CELL = Cell(
    Host("linux", "Debian GNU/Linux sid", "7.2.13", "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz", NAME),
    "virtualbox",
    "7.2.22",
    "hwvirt",
    Nesting.HARDWARE,
    True,
    "kvm",
    "debian-13-0a1b",
    "canary",
    "canary@sha256:4bd5",
)


class Desk:
    """A session in which images are there and the emulated PC is a script."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.pcs = folder, patch, FakePcs()
        self.needed: list[set[str]] = []
        self.built: list[str] = []
        self.events: list[Event] = []
        for name in ("rehearsal-sid-1", "debian-13-1", "canary-1"):
            (folder / "cache" / "images" / name).mkdir(parents=True)
        self.images = folder / "cache" / "images"
        cached = (
            SystemImage(self.images / "rehearsal-sid-1"),
            [self.images / "debian-13-1", self.images / "canary-1"],
        )
        self.tools = RehearsalTools(self.pcs.workshop, lambda _session: cached)
        patch.setattr(platform, "machine", lambda: "x86_64")
        self.factories = Factories(
            host=host,
            install=lambda purposes, **_: self.needed.append(set(purposes)),
            require_space=lambda *_: None,
        )

    @property
    def session(self) -> Session:
        settings = Settings(
            state_dir=self.folder / "state",
            cache_dir=self.folder / "cache",
            rehearsal=RehearsalSection(bochs="my-bochs", deadline=30),
        )
        return Session(settings, Steps(self.events.append), False, factories=self.factories)

    def answers(self, code: int, climbed: dict[str, Any], kept: dict[str, Any] | None = None) -> None:
        """Have lab.up in the PC answer so, and leave its evidence: the same, or `kept`."""
        folder = "evidence/default/20261201T000000.000Z-up"
        validation = {key: value for key, value in (kept or climbed).items() if key != "access"}
        files = {
            f"{folder}/run.json": {"lab": "default", "verb": "up", "started": AT.isoformat(), "order": 1},
            f"{folder}/validation.json": validation | {"schema": "lab.validation/1"},
        }
        self.pcs.leaves(files=files, **{"lab.up": (code, climbed)})

    def nothing_was_made(self) -> bool:
        return not self.pcs.disk.jobs and not (self.folder / "state" / "evidence").exists()


def climbed(fails: str = "", cell: Cell = CELL) -> dict[str, Any]:
    """lab.up/1 of a climb in the PC, in which every rung passed up to `fails`."""
    outcomes = []
    for name in LADDER.names:
        if name.startswith("android."):
            outcomes.append(Outcome(name, Status.SKIPPED, observed="canary is not Android"))
        elif name == fails:
            outcomes.append(Outcome(name, Status.FAILED, "it holds", "it does not hold"))
        else:
            outcomes.append(Outcome(name, Status.PASSED, "it holds", "it holds: <b>so</b>", 1.5))
    claims = judge(outcomes, cell, "canary")
    found = document(
        lab_name="default",
        lab_uuid="0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11",
        cell=cell,
        climbed=Climb(tuple(outcomes)),
        claims=claims,
        claim=Claim.NESTING,
        started=AT,
        ended=AT + timedelta(minutes=9),
        evidence=Path("/srv/state/evidence/default/20261201T000000.000Z-up"),
    )
    return found | {"schema": "lab.up/1", "access": None}


def checked(desk: Desk, **flags: Any) -> tuple[dict[str, Any], int, str]:
    """The document, which keeps to its schema and is in the evidence; the exit code; what a person sees."""
    reply = rehearse(desk.session, tools=desk.tools, **flags)
    schema.validate(reply.document)
    told = io.StringIO()
    assert reply.show is not None
    reply.show(Terminal(told, width=120))
    kept = json.loads((Path(reply.document["evidence"]) / "rehearse.json").read_text())
    assert kept == json.loads(json.dumps(reply.document))
    assert list((desk.folder / "state" / "rehearsals").iterdir()) == []
    return reply.document, reply.code, told.getvalue()

"""A coordinator on fakes: queue and channel are stood in for; hosts hand in lab's own archives."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.core import files
from lab.documents.fleet import MatrixEntry
from lab.fleet import coordinator
from lab.fleet.coordinator import Ways
from lab.fleet.ledger import Ledger, LedgerNight
from lab.fleet.places import Coordinator
from lab.fleet.plan import FleetPlan
from lab.fleet.queue import QueuedJob, QueueError
from lab.nights import night
from lab.notify.message import Notice
from lab.notify.sending import DeliveryError
from lab.tasks.fleet import nights
from lab.tasks.nightly.export import export
from lab.tasks.nightly.run import ROADS
from tests.unit.bed import Bed, checked
from tests.unit.fakes import TCG
from tests.unit.nights import session as nightly_session

DATE = "2026-12-01"
NOW = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
PLAN = FleetPlan.model_validate(
    {
        "host": [{"name": "alpha", "tags": ["a"]}, {"name": "beta", "tags": ["b"]}],
        "cell": [
            {"name": "one", "tags": ["a"]},
            {"name": "either"},
            {"name": "nowhere", "tags": ["z"]},
            {"name": "placed", "expects": {"host": "alpha", "processor": "A CPU"}},
        ],
    }
)


@dataclass
class StandInQueue:
    """What Queue gives, from a dictionary; tests/integration/test_fleet.py has the real one."""

    jobs: dict[int, QueuedJob] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    down: bool = False
    dies_after: int = 99

    def answers(self) -> bool:
        return not self.down

    def ask(self, cell: str, date: str) -> int:
        self._check()
        key = f"{date}/{cell}"
        if key not in self.keys:
            self.keys[key] = len(self.keys) + 1
            self.jobs[self.keys[key]] = QueuedJob()
            self.dies_after -= 1
            if self.dies_after == 0:
                self.down = True
                raise QueueError("the queue was killed as it took it")
        return self.keys[key]

    def job(self, request: int) -> QueuedJob:
        self._check()
        return self.jobs[request]

    def cancel(self, request: int) -> None:
        self._check()
        self.cancelled.append(request)

    def _check(self) -> None:
        if self.down:
            raise QueueError("the fleet's queue does not answer")


@dataclass
class Ear:
    """A channel that takes notices, or does not."""

    name: str = "ear"
    deaf: bool = False
    notices: list[Notice] = field(default_factory=list)

    def deliver(self, notice: Notice) -> str:
        if self.deaf:
            raise DeliveryError("it is down")
        self.notices.append(notice)
        return "told"


class Desk:
    """A coordinator, and hosts that hand in lab's own archives of nights on fakes."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.session = Bed(folder / "desk", patch).session()
        self.places = Coordinator(self.session.settings.state_dir)
        files.write_atomic(self.places.plan, PLAN.model_dump_json())
        self.queue, self.ear, self.now = StandInQueue(), Ear(), NOW
        files.private_folder(self.places.inbox)
        self.heard(alpha=NOW, beta=NOW)

    @property
    def ways(self) -> Ways:
        return Ways(queue=lambda _: self.queue, channels=lambda _: [self.ear], now=lambda: self.now)  # type: ignore[arg-type,return-value]

    def heard(self, at: datetime | None = None, **hosts: datetime) -> None:
        document = {
            "at": (at or max(hosts.values())).timestamp(),
            "plan": "p",
            "pid": 1,
            "hosts": {name: {"connected": True, "heard": then.timestamp()} for name, then in hosts.items()},
        }
        files.write_json(self.places.pulse, document)

    def run(self, *cells: str, date: str = DATE) -> dict[str, Any]:
        return checked(nights.run(self.session, cells, date, self.ways))["nights"][0]  # type: ignore[no-any-return]

    def gather(self) -> coordinator.Gathered:
        return coordinator.gather(self.session, self.ways)

    def job(self, cell: str, job: QueuedJob, date: str = DATE) -> None:
        self.queue.jobs[self.queue.keys[f"{date}/{cell}"]] = job

    def night_of(self, host: str, cell: str, date: str = DATE, *, refuted: bool = False) -> Path:
        """The archive of a night that really ran on a host's fakes."""
        bed = Bed(self.folder / host, self.patch)
        if refuted:
            bed.world.l2_next = TCG
        key = f"{date}/{cell}"
        checked(night.run(nightly_session(bed, runs=1, compare=False), replace(ROADS), key=key))
        file = self.folder / f"{host}-{cell}.tar"
        checked(export(bed.session(), key, str(file)))
        return file

    def hand_in(self, host: str, cell: str, file: Path, date: str = DATE) -> None:
        shutil.copy(file, self.places.inbox / f"{date}~{cell}~{host}.tar")

    def entry(self, cell: str, date: str = DATE) -> MatrixEntry:
        asked = self.night(date).cell(cell)
        assert asked is not None
        return asked.entry

    def night(self, date: str = DATE) -> LedgerNight:
        night = Ledger(self.places).night(date)
        assert night is not None
        return night

    def at(self, hour: int, minute: int = 0) -> None:
        self.now = NOW.replace(hour=hour, minute=minute)

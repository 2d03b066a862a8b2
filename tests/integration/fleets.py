"""A real fleet on one machine: Buildbot's master, workers with tags of their own, short nights."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lab.config import Settings
from lab.core.files import write_json
from lab.core.steps import Steps
from lab.documents.fleet import MatrixEntry
from lab.fleet import coordinator, environment, joining, master, processes
from lab.fleet.coordinator import Gathered, Ways
from lab.fleet.joining import Joining
from lab.fleet.ledger import Ledger
from lab.fleet.places import Coordinator, Membership
from lab.fleet.plan import FleetPlan
from lab.host.ports import free_port
from lab.tasks.fleet import nights
from lab.workflow.session import ROOT, Session

INVOKE = [sys.executable, "-m", "invoke", "--search-root", str(ROOT)]
SILENT_SECONDS = 3.0


def session_at(state: Path, cache: Path) -> Session:
    return Session(Settings(state_dir=state, cache_dir=cache), Steps(), False)


class FleetHostProcess:
    """A host: its folder, and its worker as a process."""

    def __init__(self, name: str, folder: Path, cache: Path, port: int, password: str) -> None:
        self.name, self.folder = name, folder
        self.place = Membership(folder / "state")
        session = session_at(folder / "state", cache)
        folder.mkdir()
        (folder / "seconds").write_text("0")
        job = folder / "invoke"
        program = shlex.join([sys.executable, str(ROOT / "tests/integration/fleetjob.py")])
        job.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        job.chmod(0o700)
        road = joining.write(session, Joining(name, port=port, password=password), job)
        write_json(self.place.place, road.model_dump() | {"keepalive_seconds": 1})
        self.programs = environment.programs(session)

    def start(self) -> None:
        processes.start(
            [self.programs / "twistd", "--nodaemon", "--pidfile=", "--python", self.place.tac],
            self.place.note("worker"),
            self.place.log,
            folder=self.place.folder,
            environment=os.environ | {"PYTHONPATH": str(ROOT), "LAB_STATE_DIR": str(self.folder / "state")},
        )

    def night_takes(self, seconds: float) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def jobs(self) -> list[str]:
        log = self.folder / "jobs.log"
        return log.read_text().splitlines() if log.exists() else []

    def process(self) -> psutil.Process:
        process = processes.running(self.place.note("worker"))
        assert process is not None, self.place.log.read_text()[-2000:]
        return process

    def end(self) -> None:
        processes.end(self.place.note("worker"), 3.0)


class Fleet:
    """A coordinator with its hosts."""

    def __init__(self, folder: Path, cache: Path, document: Mapping[str, object]) -> None:
        self.folder, self.cache = folder, cache
        self.session = session_at(folder / "state", cache)
        self.places = Coordinator(folder / "state")
        self.plan = FleetPlan.model_validate({"at": "", "port": free_port(19100), **document})
        self.ways = Ways(silent_seconds=SILENT_SECONDS)
        self.hosts: dict[str, FleetHostProcess] = {}

    def up(self) -> str:
        os.environ["PYTHONPATH"] = str(ROOT)
        return master.up(self.session, self.plan, pulse_seconds=0.3, invoke=INVOKE)

    def join(self, *names: str) -> None:
        for name in names:
            password = master.password(self.places, name).read_text().strip()
            host = FleetHostProcess(name, self.folder / name, self.cache, self.plan.port, password)
            self.hosts[name] = host
            host.start()

    def run(self, date: str, *cells: str) -> None:
        nights.run(self.session, cells, date, self.ways)

    def gather(self) -> Gathered:
        return coordinator.gather(self.session, self.ways)

    def hour_comes(self, date: str) -> None:
        """Have the night of that date be due now."""
        ledger = Ledger(self.places)
        with ledger.writing():
            night = ledger.night(date)
            assert night is not None
            now = datetime.now(UTC).isoformat(timespec="seconds")
            ledger.write(night.model_copy(update={"closes": now}))

    def entry(self, date: str, cell: str) -> MatrixEntry:
        night = Ledger(self.places).night(date)
        assert night is not None
        asked = night.cell(cell)
        assert asked is not None
        return asked.entry

    def until(self, met: Callable[[], object], what: str, seconds: float = 40.0) -> None:
        """Wait for it; the coordinator gathers by itself as jobs end."""
        end = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < end, f"{what}\n{self.told()}"
            time.sleep(0.1)

    def settled(self, date: str, cells: Sequence[str], seconds: float = 60.0) -> list[MatrixEntry]:
        def all_settled() -> bool:
            return all(self.entry(date, cell).state != "open" for cell in cells)

        self.until(all_settled, f"the words of {cells}", seconds)
        return [self.entry(date, cell) for cell in cells]

    def told(self) -> str:
        """What happened, for a test that failed."""
        texts = [str([each.entry for each in night.cells]) for night in Ledger(self.places).nights()]
        texts += [self.places.log.read_text()[-4000:]]
        texts += [
            f"{host.name}: {host.jobs()} {host.place.log.read_text()[-1500:]}" for host in self.hosts.values()
        ]
        return "\n".join(texts)

    def process(self) -> psutil.Process:
        process = processes.running(self.places.note)
        assert process is not None
        return process

    def end(self) -> None:
        for host in self.hosts.values():
            host.end()
        master.down(self.places)

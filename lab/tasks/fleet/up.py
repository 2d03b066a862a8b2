"""fleet.up, fleet.down, fleet.status: this machine as a fleet's coordinator."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_config_path
from rich.console import RenderableType

from lab.core import caller
from lab.core.showing import table
from lab.documents.fleet import FleetAction, FleetHostState, FleetStatus
from lab.fleet import master, plan, processes, pulse
from lab.fleet.coordinator import REAL, Ways, gather, places, plan_in_force
from lab.fleet.ledger import Ledger, LedgerNight
from lab.fleet.matrix import column
from lab.tasks.fleet.showing import nights_shown
from lab.workflow.session import ROOT, Reply, Session


def up(session: Session, file: str = "", ways: Ways = REAL) -> Reply:
    """Read fleet.toml, have the master run by it, and take in what hosts handed in meanwhile."""
    path = caller.path(file) if file else _usual()
    fleet = plan.read(path)
    here = places(session)
    with session.steps.step("fleet.up", str(path)) as step:
        step.result = done = master.up(session, fleet)
    notes = [f"{path}: {done}", f"workers reach it at 127.0.0.1:{fleet.port}"]
    notes += [f"host {host.name}: its password is in {here.passwords / host.name}" for host in fleet.host]
    unfit = [cell.name for cell in fleet.cell if not fleet.hosts_for(cell)]
    notes += [f"cell {name}: no host has all of its tags: it will be blocked" for name in unfit]
    notes += gather(session, ways).notes
    return Reply.of(FleetAction(action="up", changed="already" not in done, notes=tuple(notes)), *notes)


def down(session: Session) -> Reply:
    """End the master. What is asked for stays in its queue, and goes on when it is up again."""
    here = places(session)
    with session.steps.step("fleet.down", "Buildbot") as step:
        changed = master.down(here)
        step.result = "ended" if changed else "it did not run"
    return Reply.of(FleetAction(action="down", changed=changed, notes=(step.result,)), step.result)


def status(session: Session, ways: Ways = REAL) -> Reply:
    """The master, every host, and the nights that are open, after a gathering."""
    fleet, here = plan_in_force(session), places(session)
    notes = gather(session, ways).notes
    process = processes.running(here.note)
    answers = ways.queue(here.socket).answers() if process else False
    nights = Ledger(here).unclosed()
    known, now = pulse.read(here.pulse, ways.silent_seconds), ways.now().timestamp()
    hosts = [
        FleetHostState(
            name=host.name,
            tags=host.tags,
            state=known.state(host.name, now),
            heard=known.since(host.name) or None,
            cells=tuple(cell.name for cell in fleet.cell if host.name in fleet.hosts_for(cell)),
            work=tuple(_work(nights, host.name)),
        )
        for host in fleet.host
    ]
    document = FleetStatus(
        running=process is not None,
        pid=process.pid if process else 0,
        answers=answers,
        port=fleet.port,
        at=fleet.at,
        closes=fleet.closes,
        hosts=tuple(hosts),
        nights=tuple(column(night) for night in nights),
        notes=tuple(notes),
    )
    return Reply.of(document, *_shown(document))


def _work(nights: list[LedgerNight], host: str) -> list[str]:
    return [
        f"{night.date}/{each.cell.name}" for night in nights for each in night.open if each.entry.host == host
    ]


def _shown(document: FleetStatus) -> list[RenderableType]:
    running = (
        f"it runs, as process {document.pid}" if document.running else "it does not run: `invoke fleet.up`"
    )
    silent = "" if document.answers or not document.running else "; it does not answer"
    hosts = table(
        ("host", "state", "heard", "cells", "at work on"),
        [
            (host.name, host.state, host.heard or "", ", ".join(host.cells), ", ".join(host.work))
            for host in document.hosts
        ],
    )
    hours = f"a night begins at {document.at}" if document.at else "a night begins by fleet.run"
    return [
        f"the queue: {running}{silent}",
        f"{hours}, and closes at {document.closes}",
        hosts,
        *nights_shown(document.nights),
        *document.notes,
    ]


def _usual() -> Path:
    """fleet.toml of the project, or else the user's own."""
    own = ROOT / plan.FILE
    return own if own.is_file() else user_config_path("lab", appauthor=False) / plan.FILE

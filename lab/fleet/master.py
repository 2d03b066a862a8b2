"""Buildbot's master on the coordinator: what it is started with, starting it, ending it.

It listens for workers on 127.0.0.1 alone, and for lab on a socket in a folder of this user's. What it runs
is in buildbot/master.cfg; what differs from fleet to fleet is in plan.json beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from lab.core import files, proc, redact
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BlockedError, CommandError, DeadlineError, InconclusiveError
from lab.fleet import environment, processes, pulse
from lab.fleet.places import Coordinator
from lab.fleet.plan import FleetPlan
from lab.fleet.queue import Queue
from lab.schedule import plan as schedule
from lab.workflow.session import ROOT, Session

PARTS = Path(__file__).parent / "buildbot"
"""What Buildbot reads: written in its words, and copied as it is."""

_START_SECONDS = 120.0
_END_SECONDS = 30.0
_UPGRADE_SECONDS = 300.0
_GRACE_SECONDS = 150
"""What a night that is ended has to leave nothing behind."""
_SOCKET_BYTES = 100
"""The longest path that a Unix socket can have: 104 on macOS, 108 on Linux, with Buildbot's part."""


INVOKE = (str(ROOT / "bin" / "invoke"),)
"""How the master runs lab's own tasks."""


def up(
    session: Session,
    plan: FleetPlan,
    *,
    pulse_seconds: float = pulse.PULSE_SECONDS,
    invoke: Sequence[str] = INVOKE,
) -> str:
    """Have the master run with this plan; returns what was done. The same again converges.

    Raises BlockedError where it cannot be installed or started, InconclusiveError where that takes too long.
    """
    places = Coordinator(session.settings.state_dir)
    if len(os.fsencode(places.socket)) > _SOCKET_BYTES:
        raise BlockedError(
            f"the path of the queue's socket is too long: {places.socket}", hint="set a shorter state_dir"
        )
    programs = environment.programs(session)
    content = _plan(session, places, plan) | {"pulse_seconds": pulse_seconds, "invoke": list(invoke)}
    digest, changed = _write(places, plan, content)
    process = processes.running(places.note)
    if process is not None:
        if not changed and pulse.read(places.pulse).plan == digest:
            return "it runs already, with this plan"
        process.send_signal(signal.SIGHUP)
        _wait(places, process, digest, "read the new plan")
        return "it has read the new plan"
    try:
        proc.run(
            [programs / "buildbot", "upgrade-master", "--quiet", places.master],
            deadline=Deadline.after(_UPGRADE_SECONDS),
            log=places.log,
        )
    except CommandError as error:
        raise BlockedError(
            "Buildbot does not take its folder", tail=error.tail, evidence=[places.log, places.master]
        ) from error
    places.pulse.unlink(missing_ok=True)
    process = processes.start(
        [programs / "twistd", "--nodaemon", "--pidfile=", "--python", "buildbot.tac"],
        places.note,
        places.log,
        folder=places.master,
        environment={**os.environ, **_variables(session)},
    )
    _wait(places, process, digest, "get ready")
    return f"it runs, as process {process.pid}"


def down(places: Coordinator) -> bool:
    """End the master; whether one ran. What is asked for stays in its queue."""
    return processes.end(places.note, _END_SECONDS)


def password(places: Coordinator, host: str) -> Path:
    """The file with a host's password, made when it is missing; registered, so that no log shows it."""
    path = places.passwords / host
    if not path.exists():
        files.write_atomic(path, secrets.token_urlsafe(32) + "\n")
    redact.register(files.read_text(path))
    return path


def _write(places: Coordinator, plan: FleetPlan, content: Mapping[str, Any]) -> tuple[str, bool]:
    """Write what Buildbot reads; the digest of it, and whether anything changed."""
    for folder in (places.master, places.inbox, places.passwords, places.nights):
        files.private_folder(folder)
    named = {host.name for host in plan.host}
    for path in places.passwords.iterdir():
        if path.name not in named:
            path.unlink()  # a host that left the fleet cannot connect any more
    passwords = [files.read_text(password(places, host.name)) for host in plan.host]
    parts = {
        "master.cfg": (PARTS / "master.cfg").read_text(),
        "buildbot.tac": (PARTS / "master.tac").read_text(),
    }
    digest = hashlib.sha256(json.dumps([content, parts, passwords]).encode()).hexdigest()
    parts["plan.json"] = json.dumps({**content, "digest": digest}, indent=2) + "\n"
    files.write_atomic(places.plan, plan.model_dump_json(indent=2) + "\n")
    changed = False
    for name, text in parts.items():
        path = places.master / name
        if not path.exists() or files.read_text(path) != text:
            files.write_atomic(path, text)
            changed = True
    return digest, changed


def _plan(session: Session, places: Coordinator, plan: FleetPlan) -> dict[str, Any]:
    return {
        "at": plan.at,
        "closes": plan.closes,
        "port": plan.port,
        "hosts": [{"name": host.name} for host in plan.host],
        "cells": [
            {"name": cell.name, "hosts": plan.hosts_for(cell), "env": cell.environment} for cell in plan.cell
        ],
        "env": _variables(session),
        "nights": str(places.nights),
        "keep_days": plan.keep_days,
        "job_seconds": 60 * plan.minutes,
        "grace_seconds": _GRACE_SECONDS,
        "most_bytes": plan.archive_mib << 20,
    }


def _variables(session: Session) -> dict[str, str]:
    """What lab's own commands on the coordinator need of the environment."""
    settings = session.settings
    places = {"LAB_STATE_DIR": str(settings.state_dir), "LAB_CACHE_DIR": str(settings.cache_dir)}
    return schedule.environment() | places


def _wait(places: Coordinator, process: psutil.Process, digest: str, what: str) -> None:
    """Wait until the master answers and has this plan in force. Raises BlockedError, InconclusiveError."""
    queue = Queue(places.socket)

    def look() -> bool:
        if processes.running(places.note) is None:
            raise BlockedError(
                f"Buildbot ended before it could {what}",
                tail=proc.tail(places.log.read_text(errors="replace")[-20_000:]),
                hint="is its port taken? fleet.toml has another one as `port`",
                evidence=[places.log],
            )
        known = pulse.read(places.pulse)
        if known.plan != digest or known.pid != process.pid or not queue.answers():
            raise NotYet(f"process {process.pid} has not done so")
        return True

    try:
        poll(look, Deadline.after(_START_SECONDS), f"Buildbot to {what}", every=0.2)
    except DeadlineError as error:
        raise InconclusiveError(
            f"Buildbot did not {what} in {_START_SECONDS:.0f} s",
            tail=proc.tail(places.log.read_text(errors="replace")[-20_000:]),
            evidence=[places.log],
        ) from error

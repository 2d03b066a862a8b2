"""This machine as a host of a fleet: what is written down of it, its key, its road to the coordinator."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core import files, proc, redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, UsageError
from lab.fleet import environment, pulse
from lab.fleet.master import PARTS
from lab.fleet.places import Coordinator, Membership
from lab.fleet.plan import RESERVED
from lab.guest import keys
from lab.workflow.session import ROOT, Session

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_DESTINATION = re.compile(r"[A-Za-z0-9._@:\[\]-]+")
_SSH_SECONDS = 60.0
_JOB = """#!/bin/sh
# Made by lab (fleet.join), which writes it anew: the only program that the fleet's jobs name.
# A night is in a session of its own: a connection that is lost ends what waits for it, and not the night.
case "$1" in
nightly.run)
    {python} -c 'import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])' \\
        {invoke} "$@" </dev/null >night.log 2>&1 &
    wait $!
    status=$?
    tail -c 200000 night.log
    exit $status
    ;;
nightly.export) exec {invoke} "$@" ;;
esac
echo "the fleet has no job $1" >&2
exit 2
"""


class Road(BaseModel):
    """How a host reaches its coordinator: what is in host.json.

    `port` is on this machine's 127.0.0.1; `coordinator` is where ssh leads, empty where it is this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    port: int = Field(ge=1, le=65535)
    coordinator: str = ""
    coordinator_port: int = Field(0, ge=0, le=65535)
    ssh_config: str = ""
    keepalive_seconds: int = pulse.KEEPALIVE_SECONDS


@dataclass(frozen=True)
class Joining:
    """What fleet.join was asked for."""

    name: str
    coordinator: str = ""
    port: int = 9989
    password: str = ""
    """Empty: the one that is there."""
    ssh_config: str = ""


def write(session: Session, wanted: Joining, invoke: Path = ROOT / "bin" / "invoke") -> Road:
    """Write down what this host is in its fleet; the same again changes nothing. Raises UsageError."""
    place = Membership(session.settings.state_dir)
    if not _NAME.fullmatch(wanted.name) or wanted.name in RESERVED:
        raise UsageError(f"{wanted.name!r} is no name of a host", hint="its name in fleet.toml")
    if wanted.coordinator and (
        wanted.coordinator.startswith("-") or not _DESTINATION.fullmatch(wanted.coordinator)
    ):
        raise UsageError(f"{wanted.coordinator!r} is nothing that ssh could lead to", hint="such as me@desk")
    if Coordinator(session.settings.state_dir).plan.exists():
        raise UsageError(
            f"{session.settings.state_dir} is the coordinator's own: it cannot be a host's as well",
            hint="a host on the coordinator's machine needs a LAB_STATE_DIR of its own",
        )
    if not wanted.password and not place.password.exists():
        raise UsageError(
            "the password of this host is missing",
            hint="fleet.up made it on the coordinator, in a file: bring that here, and --password FILE",
        )
    if wanted.password:
        redact.register(wanted.password)
    road = Road(
        name=wanted.name,
        port=wanted.port,
        coordinator=wanted.coordinator,
        coordinator_port=wanted.port if wanted.coordinator else 0,
        ssh_config=wanted.ssh_config,
    )
    files.private_folder(place.folder)
    files.private_folder(place.work)
    if wanted.password:
        files.write_atomic(place.password, wanted.password + "\n")
    files.write_atomic(place.tac, (PARTS / "worker.tac").read_text())
    python = environment.programs(session) / "python"
    job = _JOB.format(python=shlex.quote(str(python)), invoke=shlex.quote(str(invoke)))
    files.write_atomic(place.job, job, 0o700)
    files.write_json(place.place, road.model_dump())
    if road.coordinator:
        keys.ensure_pair(place.key, f"lab-fleet-{road.name}")
    return road


def read(place: Membership) -> Road:
    """What was written down. Raises UsageError where this machine joined no fleet; DamagedFileError."""
    try:
        return Road.model_validate_json(files.read_text(place.place))
    except FileNotFoundError:
        raise UsageError("this machine is no host of a fleet", hint="`invoke fleet.join NAME`") from None
    except ValidationError as error:
        raise files.DamagedFileError(place.place, "not what fleet.join writes", "run it again") from error


def authorized_line(place: Membership, road: Road) -> str:
    """The line for the coordinator's authorized_keys: this key may reach the one port, and do nothing else.

    `restrict` takes everything away (sshd(8)), `port-forwarding` gives forwarding back, permitopen limits it
    to one destination. Listening cannot be forbidden altogether: permitlisten leaves port 1, which root alone
    could open.
    """
    public = place.key.with_name(f"{place.key.name}.pub").read_text().strip()
    options = (
        "restrict",
        "port-forwarding",
        f'permitopen="127.0.0.1:{road.coordinator_port}"',
        'permitlisten="127.0.0.1:1"',
        'command="/bin/false"',
    )
    return f"{','.join(options)} {public}"


def tunnel(place: Membership, road: Road) -> list[str]:
    """The ssh that leads a port of this machine to the coordinator's, and nothing else.

    Whose key the coordinator shows must be known already: nobody is there to be asked.
    """
    chosen = ["-F", road.ssh_config] if road.ssh_config else []
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": str(place.key),
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "ConnectTimeout": "20",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
    }
    forward = f"127.0.0.1:{road.port}:127.0.0.1:{road.coordinator_port}"
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *chosen, "-N", "-T", *words, "-L", forward, "--", road.coordinator]


def try_key(place: Membership, road: Road) -> None:
    """Log in to the coordinator once, by this host's key. Raises BlockedError with what is to be done.

    The key may run nothing: what ends with /bin/false's status was let in.
    """
    words = tunnel(place, road)
    at = words.index("-L")
    words = [word for word in words[:at] if word != "-N"] + words[at + 2 :]
    try:
        done = proc.run([*words, "true"], deadline=Deadline.after(_SSH_SECONDS), check=False)
    except CommandError as error:  # pragma: no cover - check is off
        raise BlockedError(error.what) from error
    if done.status == 1 and not done.err.strip():
        return
    raise BlockedError(
        f"{road.coordinator} does not let this host in yet",
        tail=proc.tail(done.err),
        hint="have its administrator add this line to ~/.ssh/authorized_keys there, and log in to it once by "
        f"hand, so that its own key is known; then run this again:\n{authorized_line(place, road)}",
    )

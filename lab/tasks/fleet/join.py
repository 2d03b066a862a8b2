"""fleet.join, fleet.leave, fleet.work: this machine as a host of a fleet."""

from __future__ import annotations

import shutil
import sys

from lab.core import caller
from lab.core.errors import UsageError
from lab.documents.fleet import FleetAction
from lab.fleet import joining, working
from lab.fleet.joining import Joining
from lab.fleet.places import Membership
from lab.schedule import installing
from lab.schedule.plan import Plan, environment
from lab.schedule.service import service
from lab.workflow.session import ROOT, Reply, Session

_PASSWORD_BYTES = 200


def join(
    session: Session,
    name: str,
    coordinator: str = "",
    port: int = 9989,
    password: str = "",
    ssh_config: str = "",
    install: bool = True,
) -> Reply:
    """Write down what this host is, see that its coordinator lets it in, have it start with the machine.

    `password` names the file that has it; empty: what is known already.
    """
    wanted = Joining(
        name=name,
        coordinator=coordinator,
        port=port,
        password=_password(password) if password else "",
        ssh_config=str(caller.path(ssh_config)) if ssh_config else "",
    )
    place = Membership(session.settings.state_dir)
    road = joining.write(session, wanted)
    notes = [f"this machine is the host {road.name} of the fleet of {road.coordinator or 'this machine'}"]
    if road.coordinator:
        with session.steps.step("fleet.tunnel", road.coordinator) as step:
            joining.try_key(place, road)
            step.result = "it lets this host in, and to one port only"
        notes.append(f"the line in its authorized_keys: {joining.authorized_line(place, road)}")
    keeper = service()
    changed = False
    if not install or shutil.which(keeper.tool) is None:
        notes.append("have `bin/invoke fleet.work` run by what starts programs here: nothing was installed")
    else:
        plan = Plan([str(ROOT / "bin" / "invoke"), "fleet.work"], ROOT, 0, 0, 0, place.log, environment())
        changed = installing.install(keeper, plan, notes.append)
        notes.append(keeper.advice())
    return Reply.of(FleetAction(action="join", changed=changed, notes=tuple(notes)), *notes)


def leave(session: Session) -> Reply:
    """Take this host out of what starts programs, and forget its fleet. Nights on record stay."""
    place = Membership(session.settings.state_dir)
    joining.read(place)
    notes: list[str] = []
    keeper = service()
    changed = installing.uninstall(keeper, notes.append) if installing.installed(keeper) else False
    working.end(place)
    shutil.rmtree(place.folder)
    notes.append("its line in the coordinator's authorized_keys, and its name in fleet.toml, go by hand")
    return Reply.of(FleetAction(action="leave", changed=changed, notes=tuple(notes)), *notes)


def work(session: Session) -> Reply:
    """Work for the fleet, until this is ended."""
    working.work(session)
    return Reply()


def _password(name: str) -> str:
    """A password from a file, or from standard input for `-`: never from the command line."""
    if name == "-":
        text = sys.stdin.readline(_PASSWORD_BYTES)
    else:
        try:
            with caller.path(name).open() as stream:
                text = stream.read(_PASSWORD_BYTES)
        except FileNotFoundError:
            raise UsageError(
                f"there is no {name}", hint="fleet.up names the file on the coordinator"
            ) from None
    if not text.strip() or len(text.split()) != 1:
        raise UsageError(f"there is no password in {name}", hint="it is one word, as fleet.up wrote it")
    return text.strip()

"""lab.attach --ssh and --here: somebody's machine becomes a lab. Nothing in it is changed unasked."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from functools import partial

from lab.config.names import check_name
from lab.core import caller
from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import BlockedError, InterruptedByUser, LabError, UsageError
from lab.core.files import write_atomic
from lab.emulators import NONE
from lab.engines import attached as engine
from lab.engines.attached import link as links
from lab.engines.attached import way, words
from lab.engines.attached.link import AttachedLink
from lab.engines.attached.way import Hop, SshWay
from lab.engines.protocol import LOOPBACK
from lab.guest import hostkeys, theirs
from lab.records.labs import Lab
from lab.records.record import Record, new_record
from lab.workflow import attached, ports, selection
from lab.workflow.answers import lab_action
from lab.workflow.guest_image import ASKED_FOR
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

HERE = "here"
"""What the lab of this very machine is called, unless it is given another name."""
_SERVICES = (5554, 5555, 6080, 4723)
"""Ports of the emulators' services, which must be free on the machine's loopback when something is added."""


@dataclass(frozen=True)
class Wanted:
    """What the flags ask for: a destination, or `here` for this machine."""

    destination: str = ""
    name: str = ""
    here: bool = False
    install_docker: bool = False
    config: str = ""
    """An ssh_config in the place of the user's own, such as Lima's of a machine."""


def attach(session: Session, flags: Wanted, *, others: bool = False) -> Reply:
    """Make the machine that is wanted a lab.

    Docker is installed where there is none and that is asked for; else its lack is told, and
    `lab.up` ends in it. `others`: flags of Vagrant's road were given, too.

    Raises, with no lab left: UsageError (a destination that is none, another lab's machine, no Linux or no
    Python there), HostKeyError, BlockedError (a host key that is not known, and nobody to ask),
    AuthRefusedError, LockedKeyError, UnreachableError, and what installing Docker raises.
    """
    if others or (flags.here and (flags.destination or flags.config)):
        raise UsageError("one machine is attached at a time: give one of --ssh, --here and --vagrant")
    if flags.here and sys.platform != "linux":
        raise UsageError(
            "--here is for Linux, and WSL2: KVM is Linux's",
            hint="on a Mac attach a Linux machine by --ssh, such as Lima's (docs/attach.md)",
        )
    session.need({"ssh", "adb"})
    road = None if flags.here else _way(flags)
    name = check_name(flags.name or (HERE if flags.here else _name(flags.destination)))
    wanted = AttachedLink(destination=flags.destination, way=road)
    _must_be_nobody_elses(session, name, wanted)
    with session.store.making(name, "lab.attach") as lab:
        new = lab.read() is None
        record = _record(session, lab)
        bench = Workbench(session, lab)
        try:
            before = None if new else _kept(record, links.read(lab.vm_folder))
            _enter(session, lab, wanted)
            link = attached.look(session, lab, record)
            _choose_ports(lab, record, link)
            bench.forget_what_was()
            if flags.install_docker and _lacks_docker(link):
                attached.install_docker(bench)
            attached.open_ports(bench)
            return _reply(bench, before)
        except (LabError, InterruptedByUser):
            if new:
                _undo(bench)
            raise
        finally:
            bench.close()


def _lacks_docker(link: AttachedLink) -> bool:
    """Whether there is none; or one that lab began to install, and did not yet let the user in."""
    return link.docker is None or (link.installs_docker and link.docker.by_sudo)


def _way(flags: Wanted) -> SshWay:
    config = caller.path(flags.config, home=True).resolve() if flags.config else None
    if config is not None and not config.is_file():
        raise UsageError(f"there is no ssh_config {config}")
    return way.resolve(flags.destination, config)


def _undo(bench: Workbench) -> None:
    """Nothing was attached, so no lab is left; lab's own folder in the machine goes, if it can be reached."""
    with cleaning_up():
        attached.close_ports(bench)
        with contextlib.suppress(LabError):
            attached.remove_all(bench.lab, bench.record())
        bench.lab.remove()


def _name(destination: str) -> str:
    """The lab's name for a destination: its host, as far as a lab may be called so."""
    host = way.split(destination)[-1]
    return re.sub(r"[^a-z0-9-]+", "-", host.lower()).strip("-")[:30] or "machine"


def _must_be_nobody_elses(session: Session, name: str, wanted: AttachedLink) -> None:
    """Raise UsageError when the lab is another machine or engine's, or another lab is this machine."""
    for lab in session.store.labs():
        try:
            record, link = lab.read(), links.read(lab.vm_folder)
        except LabError:
            continue
        if lab.name == name and record is not None and not attached.is_attached(record):
            raise UsageError(
                f"lab {name} is there already, and its engine is {record.engine}",
                hint="choose another --name",
            )
        if link is None or (lab.name == name) == (link.whose == wanted.whose):
            continue
        if lab.name == name:
            raise UsageError(
                f"lab {name} is {link}", hint="choose another --name for this one, or detach that lab"
            )
        raise UsageError(
            f"{wanted} is lab {lab.name} already",
            hint=f"work with that one: `invoke lab.up --name {lab.name}`; "
            f"`invoke lab.detach --name {lab.name}` takes away what lab made there",
        )


def _record(session: Session, lab: Lab) -> Record:
    """The lab's record. A new one says nothing yet of how the machine is: that is looked at later."""
    if (known := lab.read()) is not None:
        selection.check_emulator(session, known.emulator)
        return known
    settings = session.settings
    kind, why = settings.emulator.kind, ASKED_FOR
    if kind == "auto":
        kind, why = "canary", "gigabytes of Android go into somebody's machine only when that is asked for"
        session.steps.note(f"emulator: {kind} ({why}: LAB_EMULATOR__KIND=docker-android)")
    selection.check_emulator(session, kind)
    record = new_record(
        lab.name,
        engine=engine.NAME,
        emulator=kind,
        emulator_why="" if kind == NONE else why,
        image=attached.IMAGE,
        image_why="somebody's machine",
        cpus=1,
        memory_mib=1,
        disk_gib=0,
        paravirt="unknown",
        nested=True,
    )
    lab.create(record)
    return record


def _enter(session: Session, lab: Lab, wanted: AttachedLink) -> None:
    """Write down which machine it is, and which key opens it: whom to believe is settled before."""
    known = links.read(lab.vm_folder)
    link = (
        known.model_copy(update={"way": wanted.way, "destination": wanted.destination}) if known else wanted
    )
    links.write(lab.vm_folder, link)
    if link.way is None:
        return
    folder = lab.folder / "keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    config = lab.vm_folder / links.SSH_CONFIG
    write_atomic(config, way.written(link.way, attached.known_hosts(lab)))
    deadline = Deadline.after(session.settings.deadlines.ssh)
    with session.steps.step("machine.login", str(link.way)) as step:
        for number, hop in enumerate(link.way.hops):
            shown = _believed(session, lab, link.way.until(number), hop, deadline)
        attached.pin(lab, link, str(shown))
        keys, refusals = hostkeys.candidates(
            hop.keys, hop.own_agent, hop.only_these_keys, folder / "login.pub"
        )
        dial = partial(way.dial, link.way, config)
        opens = hostkeys.opening(dial, hop.user, shown, keys, refusals, deadline)
        if opens.path == folder / "login.pub":
            write_atomic(opens.path, f"{opens.key.get_name()} {opens.key.get_base64()} of-the-agent\n")
        # Of many keys ssh itself would try the first few, and be refused for trying too many.
        known_to_open = hop.model_copy(update={"keys": (opens.path,), "only_these_keys": True})
        road = SshWay(hops=(*link.way.hops[:-1], known_to_open))
        write_atomic(config, way.written(road, attached.known_hosts(lab)))
        links.write(lab.vm_folder, link.model_copy(update={"key": opens.path}))
        step.result = f"{hop.user}, by {opens.path.name}"


def _believed(session: Session, lab: Lab, road: SshWay, hop: Hop, deadline: Deadline) -> hostkeys.HostKey:
    """The host key that a hop shows: the user's known_hosts has it, or it is asked for once and kept."""
    dial = partial(way.dial, road, lab.vm_folder / links.SSH_CONFIG)
    own = attached.known_hosts(lab)
    known = hostkeys.known(hop.key_name, [*hop.known_hosts, own])
    shown = hostkeys.shown(dial, known, deadline)
    if hostkeys.judge(shown, hop.key_name, known) == "known":
        return shown
    what = f"the host key of {hop.key_name} is not known: {shown.fingerprint}"
    if not session.interactive:
        command = f"ssh {lab_destination(road)}"
        raise BlockedError(
            what,
            hint=f"`{command}` on a terminal asks for it and keeps it; or run this command on one",
        )
    if not session.ask(f"{what[0].upper()}{what[1:]}\nIs that the machine's?"):
        raise BlockedError(
            f"{what}, and was not agreed to", hint="the machine's owner can tell its fingerprint"
        )
    text = own.read_text() if own.exists() else ""
    write_atomic(own, f"{text}{hop.key_name} {shown}\n")
    return shown


def lab_destination(road: SshWay) -> str:
    """What to type after `ssh` for the last hop of a way."""
    hop = road.machine
    port = "" if hop.port == 22 else f"-p {hop.port} "
    through = ",".join(str(each) for each in road.hops[:-1])
    return f"{f'-J {through} ' if through else ''}{port}{hop.user}@{hop.host}"


def _choose_ports(lab: Lab, record: Record, link: AttachedLink) -> None:
    """What is added to the services' ports there, chosen once: they must be free on its loopback."""
    if link.ports_from:
        return
    with attached.guest(lab, record) as there:
        links.write(
            lab.vm_folder, link.model_copy(update={"ports_from": theirs.free_ports(there, list(_SERVICES))})
        )


def _kept(record: Record, link: AttachedLink | None) -> tuple[object, ...]:
    """What a second attaching leaves as it is, unless the machine changed: its load is no part of it."""
    parts = (link.way, link.key, link.docker, link.ports_from, words.version(link)) if link else ()
    return (record.forwards, record.cpus, record.paravirt, *parts)


def _reply(bench: Workbench, before: tuple[object, ...] | None) -> Reply:
    name, link = bench.lab.name, attached.link_of(bench.lab)
    changed = before is None or before != _kept(bench.record(), link)
    notes = [f"it is {words.version(link)}"]
    notes += [f"{forward.name} on {LOOPBACK}:{forward.host_port}" for forward in ports.forwards(bench.lab)]
    if link.python:
        notes.append("it has no Python that will do, so lab brought one into its own folder there")
    if link.docker is None:
        error = theirs.why_no_docker(bench.guest)
        notes.append(f"{error.what}: {error.hint}")
    elif link.docker.by_sudo:
        notes.append("only root reaches its Docker, so lab uses sudo for it (group docker would do without)")
    if link.kvm_by_sudo:
        notes.append(
            "only root may use its /dev/kvm, so lab uses sudo to probe it (group kvm would do without)"
        )
    notes.append(f"`invoke lab.up --name {name}` starts the emulator and climbs the ladder")
    return lab_action(name, "attach", bench.machine_state(), changed, notes, "attached")

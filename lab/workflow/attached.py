"""A lab that is somebody's machine: the way in, what it is, its ports, removing what lab put there."""

from __future__ import annotations

import getpass
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, LabError
from lab.emulators.transfer import LOADED
from lab.engines import attached
from lab.engines.attached import link as links
from lab.engines.attached import way, words
from lab.engines.attached.forwarding import Forwards
from lab.engines.attached.link import AttachedLink, Docker, MachineFacts
from lab.engines.protocol import LOOPBACK
from lab.guest import keys, python, theirs
from lab.guest.local import LocalGuest
from lab.guest.ssh import Guest
from lab.guest.terms import Terms
from lab.guest.trial import OWNER_LABEL
from lab.host.facts import HostFacts
from lab.ladder.rungs.guest import KVM_SIGNATURE
from lab.probes.kvm import SMCCC_SIGNATURE
from lab.records.labs import Lab
from lab.records.record import Access, Record

if TYPE_CHECKING:
    from lab.workflow.session import Session
    from lab.workflow.workbench import Workbench

IMAGE = "as found"
"""What the record has as `image` for an attached machine."""
_SECONDS = 60.0


def is_attached(record: Record | None) -> bool:
    """Whether the lab is somebody's machine."""
    return record is not None and record.engine == attached.NAME


def link_of(lab: Lab) -> AttachedLink:
    """Which machine the lab is. Raises LabError when that is lost."""
    link = links.read(lab.vm_folder)
    if link is None:
        raise LabError(
            f"lab {lab.name} does not say which machine it is",
            hint=f"`invoke lab.attach --ssh DESTINATION --name {lab.name}` tells it",
        )
    return link


def suffix(record: Record) -> str:
    """Suffix of lab's container names, so two labs can share one machine."""
    return record.uuid[:8]


def folder(record: Record) -> str:
    """lab's own folder in the machine: all files that lab puts there are in it."""
    return f"/var/tmp/lab-{record.uuid}"  # noqa: S108 - of a name nobody else uses, and its user's alone


def place(lab: Lab, record: Record) -> dict[str, Any]:
    """What sets its emulators' names and ports apart (lab.emulators.Place); empty for a VM of lab's own."""
    if not is_attached(record):
        return {}
    link = links.read(lab.vm_folder)
    return {
        "suffix": suffix(record),
        "ports_from": link.ports_from if link else 0,
        "arm64": bool(link and link.about and link.about.facts.arm64),
    }


def host(lab: Lab) -> HostFacts | None:
    """Host facts of the attached machine, from the last look; None before the first."""
    link = links.read(lab.vm_folder)
    return link.about.facts if link and link.about else None


def guest(lab: Lab, record: Record, *, as_root: bool = False, afresh: bool = False) -> Guest:
    """A connection to the machine. `as_root`: commands that are to run as root do, for what was asked for.

    `afresh`: nothing is taken for granted of how its Docker and its KVM are reached.
    """
    link = link_of(lab)
    if afresh:
        link = link.model_copy(update={"docker": None, "kvm_by_sudo": False, "python": ()})
    docker = link.docker
    by_sudo = bool(docker and docker.by_sudo)
    config = lab.vm_folder / links.SSH_CONFIG
    command: tuple[str, ...] = (os.environ.get("SHELL", "/bin/sh"),)
    if link.way is not None:
        command = ("ssh", "-F", str(config), way.MACHINE)
    terms = Terms(
        somebodys=True,
        owner=record.uuid,
        dial=partial(way.dial, link.way, config) if link.way else None,
        agent=link.way.machine.own_agent if link.way else "",
        command=command,
        sudo=as_root or by_sudo,
        docker_by_sudo=by_sudo,
        kvm_by_sudo=link.kvm_by_sudo,
        python=link.python,
        environment={"DOCKER_HOST": docker.host} if docker and docker.host else {},
        folder=folder(record),
        publish=LOOPBACK,
    )
    if link.way is None:
        return LocalGuest(getpass.getuser(), terms)
    if link.key is None:
        raise BlockedError(
            f"lab {lab.name} was never let into {link.way}",
            hint=f"`invoke lab.attach --ssh {link.destination} --name {lab.name}` goes on with it",
        )
    machine = link.way.machine
    return Guest(
        machine.host,
        port=machine.port,
        user=machine.user,
        key=link.key,
        known_hosts=lab.folder / "keys" / "known_hosts",
        terms=terms,
    )


def pin(lab: Lab, link: AttachedLink, key: str) -> None:
    """Believe this host key (`kind base64`) of the machine from now on, and no other."""
    assert link.way is not None  # noqa: S101 - only a machine over SSH has one
    machine = link.way.machine
    keys.write_pinned(lab.folder / "keys" / "known_hosts", machine.host, machine.port, key)


def refresh(bench: Workbench) -> AttachedLink:
    """Look at the machine anew, find its Docker, and have its ports on the loopback here.

    Raises LabError. What was found is in the link and in the lab's record.
    """
    lab = bench.lab
    with bench.session.steps.step("machine.look", str(link_of(lab))) as step:
        link = look(bench.session, lab, bench.record())
        assert link.about is not None  # noqa: S101 - looked at just now
        step.result = words.version(link)
    bench.forget_what_was()
    open_ports(bench)
    return link


def look(session: Session, lab: Lab, record: Record) -> AttachedLink:
    """What the machine is, and its Docker, written into the link and the record. Raises LabError.

    Where its Python will not do, lab's own is brought there first.
    """
    link = link_of(lab)
    with guest(lab, record, afresh=True) as there:
        there.run(["mkdir", "-p", "-m", "700", folder(record)])
        if why := python.look(there)[1]:
            from lab.workflow import carrying  # what builds images is of no use to most tasks

            link = link.model_copy(update={"python": carrying.words(session, there, why)})
        else:
            link = link.model_copy(update={"python": ()})
        there.terms = replace(there.terms, python=link.python)
        looks = theirs.look(there)
        engine = theirs.find_docker(there)
        by_sudo = theirs.kvm_by_sudo(there)
    docker = None
    if engine is not None:
        docker = Docker(
            kind=engine.kind,
            version=engine.version,
            host=engine.host,
            by_sudo=engine.by_sudo,
        )
    signature = looks.host.cpu.signature
    facts = MachineFacts(
        host=looks.host.as_dict(),
        virtualization=looks.virtualization,
        under=words.under(signature, looks.virtualization, looks.host),
        wsl=looks.wsl,
        nested=looks.nested,
        python=looks.python,
    )
    link = link.model_copy(update={"about": facts, "docker": docker, "kvm_by_sudo": by_sudo})
    links.write(lab.vm_folder, link)
    lab.change(
        cpus=looks.host.cpus,
        memory_mib=looks.host.memory_total >> 20,
        paravirt=_paravirt(signature),
    )
    return link


def _paravirt(signature: str | None) -> Literal["kvm", "none", "unknown"]:
    if signature in (KVM_SIGNATURE, SMCCC_SIGNATURE):
        return "kvm"
    return "none" if signature == "" else "unknown"


def require_docker(bench: Workbench) -> None:
    """Raise BlockedError or LabError, with the way out of it, when the machine's user reaches no Docker."""
    if link_of(bench.lab).docker is None:
        raise theirs.why_no_docker(bench.guest)


def open_ports(bench: Workbench) -> None:
    """Have the services of every emulator on the loopback here. What is open stays."""
    from lab.workflow import ports

    wanted = bench.guest_ports()
    if link_of(bench.lab).here:  # what is published there is on this loopback already
        bench.lab.change(
            forwards={name: Access(host_port=port, guest_port=port) for name, port in wanted.items()}
        )
        return
    fixed = bench.session.settings.ports.model_dump()
    ports.open_at_run_time(bench.lab, bench.machine, wanted, fixed, bench.session.steps)


def close_ports(bench: Workbench) -> None:
    """End every forward to the machine, those that no record names among them."""
    if (link := links.read(bench.lab.vm_folder)) is not None and not link.here:
        config = bench.lab.vm_folder / links.SSH_CONFIG
        Forwards(bench.lab.vm_folder, config, bench.record().uuid).close_all()


def remove_all(lab: Lab, record: Record) -> list[str]:
    """Remove all that lab made in the machine: containers, images, files. Returns sentences of what was done.

    Raises LabError when the machine cannot be reached, or something cannot be removed; what was not removed
    stays.
    """
    link, notes = link_of(lab), []
    with guest(lab, record) as there:
        if link.docker is not None:
            notes += _leave_docker(lab, record, there)
        there.run(["rm", "-rf", folder(record)], sudo=True)
    if link.installs_docker:
        notes.append("Docker stays, which lab was asked to install")
    return notes


def _leave_docker(lab: Lab, record: Record, there: Guest) -> list[str]:
    notes: list[str] = []
    ours = ["--all", "--quiet", "--no-trunc", "--filter", f"label={OWNER_LABEL}={record.uuid}"]
    if containers := there.run(["docker", "container", "ls", *ours]).out.split():
        there.run(["docker", "container", "rm", "--force", "--volumes", *containers])
        notes.append(f"{_count(len(containers), 'container')} removed")
    images = set(there.run(["docker", "image", "ls", *ours]).out.split())
    removed = 0
    for image in (*images, *(entry.key for entry in lab.journal.entries(LOADED))):
        if there.run(["docker", "image", "inspect", image], check=False).status != 0:
            continue  # it was never loaded, or is gone
        done = there.run(["docker", "image", "rm", image], check=False)
        if done.status == 0:
            removed += 1
        elif re.search(r"in use|being used|is using", done.err):
            notes.append(f"the image {image} stays: another container uses it")
        else:
            raise CommandError(["docker", "image", "rm", image], done.status, tail=done.err.strip())
    return [*notes, *([f"{_count(removed, 'image')} removed"] if removed else [])]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def install_docker(bench: Workbench) -> None:
    """Install Docker in the machine, as it was asked for. Raises BlockedError, LabError."""
    lab, record = bench.lab, bench.record()
    links.write(lab.vm_folder, link_of(lab).model_copy(update={"installs_docker": True}))
    with (
        bench.session.steps.step("docker.install") as step,
        guest(lab, record, as_root=True) as there,
    ):
        deadline = Deadline.after(bench.session.settings.deadlines.docker)
        theirs.install_docker(there, step, deadline)
    link = look(bench.session, lab, record)
    bench.forget_what_was()
    if link.docker is None:
        raise theirs.why_no_docker(bench.guest)


def has_ssh() -> bool:
    """Whether OpenSSH's client is here."""
    return shutil.which("ssh") is not None and shutil.which("ssh-keygen") is not None


def known_hosts(lab: Lab) -> Path:
    """The file of host keys that lab's user said yes to, for OpenSSH's own processes."""
    return lab.folder / "keys" / "hosts"

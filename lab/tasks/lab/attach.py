"""lab.attach: a running machine of Vagrant's becomes a lab."""

from __future__ import annotations

from collections.abc import Mapping

from lab.config.names import check_name
from lab.core import caller
from lab.core.deadline import Deadline
from lab.core.errors import InconclusiveError, UsageError
from lab.engines import vagrant
from lab.engines.protocol import LOOPBACK, State
from lab.engines.vagrant import link
from lab.engines.vagrant import machine as machines
from lab.engines.vagrant.libvirt import URI
from lab.engines.vagrant.link import VagrantLink
from lab.engines.vagrant.program import Entrance, Vagrant
from lab.guest import adopt, keys
from lab.guest.login import LockedKeyError
from lab.records.record import Access
from lab.tasks.image import box
from lab.tasks.lab import vagrantfile
from lab.workflow import ports, selection
from lab.workflow.answers import lab_action
from lab.workflow.session import ROOT, Reply, Session
from lab.workflow.workbench import GUEST_SSH_PORT, Workbench


def attach(session: Session, machine: str, name: str = "", folder: str = "") -> Reply:
    """Make Vagrant's machine a lab of its name (or `name`): its host key pinned, lab's own key in it.

    `folder` is the Vagrantfile's, this project's when left out. Only the VM's login and lab's record are
    touched: `lab.up` does the rest. Raises, before anything is made or sent: UsageError (the machine does
    not run where lab can see it, its SSH server is not reached through the loopback, it can be given no
    forwards, it is another lab's), InconclusiveError (its hypervisor does not say how it is). UsageError
    when an account in it has the name of lab's; LockedKeyError when every key of Vagrant's has a passphrase;
    HostKeyError when it is not the machine that was pinned.
    """
    machine = machine or vagrantfile.MACHINE
    name = check_name(name or machine)
    root = caller.path(folder, home=True).resolve() if folder else ROOT
    program = Vagrant(root, machine)
    with session.steps.step("vagrant.ask", f"{machine} in {root}") as step:
        provider = box.check_provider(program.provider())
        entrance = program.entrance()
        step.result = f"{provider}: {entrance.user}@{entrance.host}:{entrance.port}"
    if entrance.host not in (LOOPBACK, "localhost"):
        raise UsageError(
            f"lab reaches its VMs through the loopback, and {machine} answers at {entrance.host}",
            hint="by VirtualBox every machine of Vagrant's does; by libvirt one with QEMU's user network, "
            "as this project's Vagrantfile makes it",
        )
    session = vagrantfile.by_vagrant(session, provider)
    entry = {"ssh": (entrance.port, GUEST_SSH_PORT)}
    wanted = VagrantLink(root=root, machine=machine, provider=provider, made=False, forwards=entry)
    tied = _tied(session, name, wanted)
    described = _look(wanted, made=tied is not None and tied.made)
    there = session.store.find(name)
    plan = selection.planned(session, name) if there is None or there.read() is None else None
    with session.store.making(name, "lab.attach") as lab:
        new = lab.read() is None
        selection.record_for(session, lab, plan)
        bench = Workbench(session, lab)
        try:
            return _reply(bench, _join(bench, wanted, entrance, described))
        except (UsageError, LockedKeyError):
            if new and vagrantfile.link_of(lab) is None:  # then nothing was changed in the machine either
                lab.remove()
            raise
        finally:
            bench.close()


def _tied(session: Session, name: str, wanted: VagrantLink) -> VagrantLink | None:
    """What ties the lab to this machine already. Raises UsageError when either is tied to another."""
    vagrantfile.must_be_nobody_elses(session, name, wanted)
    lab = session.store.find(name)
    linked = vagrantfile.link_of(lab) if lab else None
    if linked is not None and linked.whose != wanted.whose:
        raise UsageError(
            f"lab {name} is the machine {linked.machine} of {linked.root}, by {linked.provider}",
            hint="choose another --name for this one, or destroy that lab",
        )
    return linked


def _look(wanted: VagrantLink, *, made: bool) -> dict[str, object]:
    """What the record is to say of the machine, which is as it is, and not as lab is configured.

    Nothing when lab `made` it: its record says what it was made with.
    """
    known = machines.at_hypervisor(wanted)
    if known is None:
        raise UsageError(
            f"Vagrant keeps no id of {wanted.machine} in {wanted.root}",
            hint="--folder is the one the Vagrantfile itself is in",
        )
    if (state := known.state()) is not State.RUNNING:
        raise _not_running(wanted, state)
    if why := known.why_no_forwards():
        raise UsageError(
            f"lab could not reach an emulator in {wanted.machine}: {why}",
            hint="this project's Vagrantfile makes machines that have what is needed",
        )
    return {} if made else _as_it_is(wanted, known.settings())


def _not_running(wanted: VagrantLink, state: State) -> UsageError:
    if state is not State.ABSENT:
        return UsageError(
            f"the machine {wanted.machine} is {state}: only one that runs can be attached",
            hint="`vagrant up` or `vagrant resume` has it run",
        )
    if wanted.provider == "libvirt":
        return UsageError(
            f"Vagrant says that {wanted.machine} runs, and your own libvirt session ({URI}) does not have it",
            hint="libvirt's system connection, which is vagrant-libvirt's own choice, is not supported: "
            "a machine of the session is, with QEMU's user network, as this project's Vagrantfile makes it",
        )
    return UsageError(
        f"Vagrant says that {wanted.machine} runs, and VirtualBox does not know it",
        hint="run lab as the user, and with the VBOX_USER_HOME, that Vagrant was run with",
    )


def _as_it_is(known: VagrantLink, described: Mapping[str, str]) -> dict[str, object]:
    sizes = {name: described.get(name, "") for name in ("cpus", "memory_mib", "nested")}
    numbers = sizes["cpus"].isdecimal() and sizes["memory_mib"].isdecimal()
    if not numbers or sizes["nested"] not in ("on", "off"):
        listed = ", ".join(f"{name} {value or '?'}" for name, value in sizes.items())
        raise InconclusiveError(
            f"{known.provider} does not say how the machine {known.machine} is: {listed}",
            hint="a verdict holds for a machine that is known, so lab does not assume any of these",
        )
    paravirt = described.get("paravirt", "")
    return {
        "image": f"{known.provider}-{known.machine}",
        "image_why": f"the machine {known.machine} of {known.root}",
        "cpus": int(sizes["cpus"]),
        "memory_mib": int(sizes["memory_mib"]),
        "nested": sizes["nested"] == "on",
        "paravirt": paravirt if paravirt in ("kvm", "none", "default") else "unknown",
    }


def _join(bench: Workbench, wanted: VagrantLink, entrance: Entrance, described: Mapping[str, object]) -> bool:
    """Tie lab and machine together; whether anything was to be done. `found` is what the record is to say."""
    lab = bench.lab
    tied = vagrantfile.link_of(lab)
    if bench.record().engine != vagrant.engine_of(wanted.provider):
        raise UsageError(
            f"lab {lab.name} is there already, and its engine is {bench.record().engine}",
            hint="choose another --name",
        )
    made = tied is not None and tied.made
    before = bench.record()
    with bench.session.steps.step("vagrant.login", entrance.user) as step:
        folder = lab.folder / "keys"
        if not made:  # the key of one that lab made is known from its seed
            keys.pin(folder, adopt.host_key(entrance.port, Deadline.after(_ssh_seconds(bench))))
            bench.__dict__.pop("keys", None)
        known = keys.write_known_hosts(folder / "known_hosts", bench.keys.host, entrance.port)
        step.result = adopt.admit(entrance.port, entrance.user, entrance.keys, known, bench.keys.user)
    if tied is None:
        link.write(lab.vm_folder, wanted)
    lab.change(
        forwards=before.forwards | {"ssh": Access(host_port=entrance.port, guest_port=GUEST_SSH_PORT)},
        **described,
    )
    _forward(bench)
    return lab.record() != before


def _ssh_seconds(bench: Workbench) -> float:
    return bench.session.settings.deadlines.ssh


def _forward(bench: Workbench) -> None:
    """Have the emulator's services on the loopback too."""
    wanted = {name: port for name, port in bench.guest_ports().items() if name != "ssh"}
    with bench.session.steps.step("vagrant.ports") as step:
        fixed = bench.session.settings.ports.model_dump()
        ports.open_at_run_time(bench.lab, bench.machine, wanted, fixed, bench.session.steps)
        step.result = ", ".join(f"{item.name} on {item.host_port}" for item in ports.forwards(bench.lab))


def _reply(bench: Workbench, changed: bool) -> Reply:
    name, state = bench.lab.name, bench.machine_state()
    notes = [f"{forward.name} on {LOOPBACK}:{forward.host_port}" for forward in ports.forwards(bench.lab)]
    notes.append(f"`invoke lab.up --name {name}` installs Docker, starts the emulator and climbs the ladder")
    is_now = "attached" if state is State.RUNNING else state.value
    return lab_action(name, "attach", state, changed, notes, is_now)

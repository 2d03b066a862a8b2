"""lab.attach: a running machine of Vagrant's becomes a lab."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lab.commands import box, choose, ports, vagrantfile
from lab.commands.session import ROOT, Reply, Session
from lab.commands.workbench import GUEST_SSH_PORT, Workbench
from lab.config.names import check_name
from lab.deadline import Deadline
from lab.engines import vagrant
from lab.engines.protocol import LOOPBACK, State
from lab.engines.vagrant import link
from lab.engines.vagrant.link import Link
from lab.engines.vagrant.program import Entrance, Vagrant
from lab.errors import UsageError
from lab.guest import adopt, keys
from lab.store import Access


def attach(session: Session, machine: str, name: str = "", folder: str = "") -> Reply:
    """Make Vagrant's machine a lab of its name (or `name`): its host key pinned, lab's own key in it.

    `folder` is the Vagrantfile's, this project's when left out. Only the VM's login and lab's record are
    touched: `lab.up` does the rest. Raises UsageError when the machine does not run, or its SSH server
    is not reached through the loopback; HostKeyError when it is not the machine that was pinned.
    """
    machine = machine or vagrantfile.MACHINE
    name = check_name(name or machine)
    root = Path(folder).expanduser().resolve() if folder else ROOT
    program = Vagrant(root, machine)
    with session.steps.step("vagrant.ask", f"{machine} in {root}") as step:
        provider = box.check_provider(program.provider())
        entrance = program.entrance()
        step.result = f"{provider}: {entrance.user}@{entrance.host}:{entrance.port}"
    if entrance.host not in (LOOPBACK, "localhost"):
        raise UsageError(
            f"lab reaches its VMs through the loopback, and {machine} answers at {entrance.host}",
            hint="give it a forward of its SSH port: forward_ssh_port, with vagrant-libvirt; or "
            "use this project's Vagrantfile, which has a user network",
        )
    session = vagrantfile.by_vagrant(session, provider)
    lab = session.store.place(name)
    with lab.hold("lab.attach"):
        choose.record_for(session, lab)
        bench = Workbench(session, lab)
        try:
            entry = {"ssh": (entrance.port, GUEST_SSH_PORT)}
            wanted = Link(root=root, machine=machine, provider=provider, made=False, forwards=entry)
            return _reply(bench, _join(bench, wanted, entrance))
        finally:
            bench.close()


def _join(bench: Workbench, wanted: Link, entrance: Entrance) -> bool:
    """Tie lab and machine together; whether anything was to be done."""
    lab = bench.lab
    found = link.read(lab.vm_folder)
    theirs = (wanted.root, wanted.machine, wanted.provider)
    if found is not None and (found.root, found.machine, found.provider) != theirs:
        raise UsageError(
            f"lab {lab.name} is the machine {found.machine} of {found.root}, by {found.provider}",
            hint="choose another --name for this one, or destroy that lab",
        )
    if bench.record.engine != vagrant.engine_of(wanted.provider):
        raise UsageError(
            f"lab {lab.name} is there already, and its engine is {bench.record.engine}",
            hint="choose another --name",
        )
    if found is None:
        link.write(lab.vm_folder, wanted)
    made = found is not None and found.made
    before = bench.record
    with bench.session.steps.step("vagrant.login", entrance.user) as step:
        folder = lab.folder / "keys"
        if not made:  # the key of one that lab made is known from its seed
            keys.pin(folder, adopt.host_key(entrance.port, Deadline.after(_ssh_seconds(bench))))
            bench.__dict__.pop("keys", None)
        known = keys.write_known_hosts(folder / "known_hosts", bench.keys.host, entrance.port)
        step.result = adopt.admit(entrance.port, entrance.user, entrance.key, known, bench.keys.user)
    lab.change(
        forwards=before.forwards | {"ssh": Access(host_port=entrance.port, guest_port=GUEST_SSH_PORT)},
        **({} if made else _as_it_is(bench, wanted)),
    )
    _forward(bench)
    return lab.record() != before


def _ssh_seconds(bench: Workbench) -> float:
    return bench.session.settings.deadlines.ssh


def _as_it_is(bench: Workbench, known: Link) -> dict[str, object]:
    """What a machine that lab did not make is like: the record says that, not what was configured."""
    found = bench.machine.settings()
    return {
        "image": f"{known.provider}-{known.machine}",
        "image_why": f"the machine {known.machine} of {known.root}",
        "cpus": int(found.get("cpus") or bench.record.cpus),
        "memory_mib": int(found.get("memory_mib") or bench.record.memory_mib),
        "nested": found.get("nested", "on") == "on",
    }


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
    document = {
        "schema": "lab.action/1",
        "lab": name,
        "action": "attach",
        "state": state.value,
        "changed": changed,
        "notes": notes,
    }

    def tell(console: Console) -> None:
        sentence = f"lab {name} is {state}" if state is not State.RUNNING else f"lab {name} is attached"
        for line in (sentence, *notes):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return Reply(document, tell)

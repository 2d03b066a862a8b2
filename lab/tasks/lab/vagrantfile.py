"""What the Vagrantfile asks lab: how a machine is to be, and to make what it needs before `vagrant up`."""

from __future__ import annotations

import dataclasses

from lab.config.names import check_name
from lab.core.errors import BlockedError, LabError, UsageError
from lab.documents.images import VagrantBoxEntry, VagrantPlan
from lab.engines import vagrant
from lab.engines.protocol import MachineSpec, State
from lab.engines.vagrant import Provider, link, plan
from lab.engines.vagrant import box as boxes
from lab.engines.vagrant import machine as machines
from lab.guest import keys as key_files
from lab.guest import seed
from lab.host.ports import holder_of, is_free
from lab.images import cache, debian
from lab.records.labs import Lab
from lab.records.record import Record
from lab.tasks.image import box
from lab.workflow import consent, guest_image, ports, preflight, selection
from lab.workflow.session import ROOT, Reply, Session
from lab.workflow.workbench import Workbench

MACHINE = "vagrant"
"""What this project's Vagrantfile calls its machine, unless told another name; the lab is called the same."""

CONSOLE = "console.log"


def describe(session: Session, machine: str, provider: str) -> Reply:
    """How the machine is, or would be: nothing is made, and neither network nor hypervisor is asked."""
    machine = check_name(machine or MACHINE)
    known = box.check_provider(provider)
    lab = session.store.find(machine)
    record = lab.read() if lab else None
    if lab is not None and record is not None and _is_ours(lab, record, known):
        linked = link.read(lab.vm_folder)
        return _reply(session, lab, record, known, prepared=bool(linked and linked.forwards))
    lab = Lab(session.store.labs_folder / machine)
    return _reply(session, lab, box.blank(session, known), known, prepared=False)


def prepare(session: Session, machine: str, provider: str) -> Reply:
    """Record, keys, seed, ports and box, made as far as they are missing; the VM is Vagrant's to make.

    Raises BlockedError (Vagrant's provider, images, disk, a taken port, no consent), UsageError (the
    lab of that name is another engine's; Vagrant has the machine, and no lab, or another one, is it: nothing
    was made then), BusyError.
    """
    machine = check_name(machine or MACHINE)
    known = box.check_provider(provider)
    session = by_vagrant(session, known)
    there = session.store.find(machine)
    if there is not None and (record := there.read()) is not None:
        _must_be_ours(there, record, known)
    availability = session.engine(session.settings.engine).availability()
    if not availability.usable:
        raise BlockedError(
            f"{session.settings.engine} cannot be used: {availability.why}", hint=availability.hint
        )
    wanted = link.VagrantLink(root=ROOT, machine=machine, provider=known, made=True)
    must_be_nobody_elses(session, machine, wanted)
    if there is None or link.read(there.vm_folder) is None:
        _must_be_absent(wanted)
    record = there.read() if there is not None else None
    plan = record or selection.planned(session, machine)
    if plan.nested:
        consent.require(session, session.engine(plan.engine, plan.acceleration))
    with session.store.making(machine, "lab.attach") as lab:
        record = selection.record_for(session, lab, plan)
        bench = Workbench(session, lab)
        if not record.image:
            image, why = session.factories.guest_image(session, record)
            record = lab.change(image=image, image_why=why)
            session.steps.note(f"image: {image} ({why})")
        box.make(session, known, record)
        if known == "libvirt" and record.acceleration == "auto":
            # Asked once: what the machine is made with, it keeps.
            record = lab.change(acceleration=bench.engine.facts().acceleration)
        _seed(bench)
        _ports(bench, wanted)
        entrance = lab.record().forwards["ssh"]
        key_files.write_known_hosts(lab.folder / "keys" / "known_hosts", bench.keys.host, entrance.host_port)
        return _reply(session, lab, lab.record(), known, prepared=True)


def by_vagrant(session: Session, provider: Provider) -> Session:
    """The session with Vagrant's engine in the place of the configured one."""
    settings = session.settings.model_copy(update={"engine": vagrant.engine_of(provider)})
    return dataclasses.replace(session, settings=settings)


def _is_ours(lab: Lab, record: Record, provider: Provider) -> bool:
    """Whether this lab is, or is to be, a machine of this project's Vagrantfile, by that provider."""
    linked = link.read(lab.vm_folder)
    right = linked is None or (linked.made and linked.root == ROOT)
    return right and record.engine == vagrant.engine_of(provider)


def _must_be_ours(lab: Lab, record: Record, provider: Provider) -> None:
    if not _is_ours(lab, record, provider):
        raise UsageError(
            f"lab {lab.name} is there already, and is no machine of this Vagrantfile's by {provider}",
            hint=f"`invoke lab.destroy --name {lab.name}` removes it; or give Vagrant's machine another "
            "name: VAGRANT_LAB=other",
        )


def _seed(bench: Workbench) -> None:
    record = bench.record()
    grow = record.disk_gib > debian.recipe().disk.size_gib
    bench.lab.journal.intend("file", str(bench.spec.seed))
    seed.write(seed.Seed(record.uuid, f"lab-{record.name}", bench.keys, grow), bench.spec.seed)
    bench.lab.journal.done("file", str(bench.spec.seed))


def must_be_nobody_elses(session: Session, name: str, wanted: link.VagrantLink) -> None:
    """Raise UsageError when a lab of another name is the machine: two would take it from each other."""
    for lab in session.store.labs():
        linked = link_of(lab)
        if lab.name != name and linked is not None and linked.whose == wanted.whose:
            gone = "destroys the machine" if linked.made else "forgets the machine, which stays"
            raise UsageError(
                f"the machine {wanted.machine} of {wanted.root} is lab {lab.name} already",
                hint=f"work with that one: `invoke lab.up --name {lab.name}`; "
                f"`invoke lab.destroy --name {lab.name}` {gone}",
            )


def link_of(lab: Lab) -> link.VagrantLink | None:
    """Which of Vagrant's machines a lab is; None when it is none, or what says so is damaged."""
    try:
        return link.read(lab.vm_folder)
    except LabError:
        return None


def _must_be_absent(wanted: link.VagrantLink) -> None:
    """Of a machine that somebody else made lab must not say that it made it: `lab.destroy` goes by that."""
    if machines.state_of(wanted) is not State.ABSENT:
        raise UsageError(
            f"Vagrant has the machine {wanted.machine} already, and lab does not know it",
            hint=f"`vagrant destroy {wanted.machine}`, then `vagrant up` makes one that both know",
        )


def _ports(bench: Workbench, wanted: link.VagrantLink) -> None:
    """Link and ports of a machine that is to be made; one that is there keeps those it was made with."""
    linked, state = link.read(bench.lab.vm_folder), bench.machine.status()
    if linked is None or not linked.forwards or not bench.record().forwards:
        _must_be_absent(wanted)
    if linked is None or state is State.ABSENT:
        preflight.before_start(bench.session, bench.lab, bench.record())
        fixed = bench.session.settings.ports.model_dump()
        chosen = ports.choose(bench.lab, bench.guest_ports(), fixed, bench.session.steps)
        known = {item.name: (item.host_port, item.guest_port) for item in chosen}
        link.write(bench.lab.vm_folder, (linked or wanted).model_copy(update={"forwards": known}))
    elif state in (State.STOPPED, State.SUSPENDED):
        for forward in ports.forwards(bench.lab):
            if not is_free(forward.host_port):
                raise BlockedError(
                    f"the machine's {forward.name} is on host port {forward.host_port}, which is taken"
                    f"{holder_of(forward.host_port)}",
                    hint="end that program, or `vagrant destroy` and `vagrant up` for other ports",
                )


def _reply(session: Session, lab: Lab, record: Record, provider: Provider, *, prepared: bool) -> Reply:
    state = "is ready for `vagrant up`" if prepared else "is not there: `vagrant up` makes it"
    return Reply.of(_machine(session, lab, record, provider, prepared=prepared), f"lab {lab.name} {state}")


def _machine(
    session: Session, lab: Lab, record: Record, provider: Provider, *, prepared: bool
) -> VagrantPlan:
    spec = MachineSpec(
        uuid=record.uuid,
        name=lab.name,
        folder=lab.vm_folder,
        base_disk=cache.disk(session.images, record.image),
        seed=lab.folder / "seed.iso",
        cpus=record.cpus,
        memory_mib=record.memory_mib,
        disk_gib=record.disk_gib,
        paravirt=record.paravirt,
        nested=record.nested,
    )
    linked = link.read(lab.vm_folder) if prepared else None
    forwards = linked.built_in if linked else []
    options = session.engine_options(record.acceleration)
    console, keys = lab.vm_folder / CONSOLE, lab.folder / "keys"
    by_libvirt = provider == "libvirt"
    return VagrantPlan(
        lab=lab.name,
        provider=provider,
        prepared=prepared,
        cpus=record.cpus,
        memory_mib=record.memory_mib,
        disk_gib=record.disk_gib,
        boot_seconds=session.settings.deadlines.boot,
        user=seed.USER,
        key=str(keys / "id_ed25519") if prepared else None,
        known_hosts=str(keys / "known_hosts") if prepared else None,
        seed=str(spec.seed) if prepared else None,
        console=str(console) if prepared else None,
        box=_box(session, record, provider),
        forwards=forwards,
        libvirt=plan.libvirt(spec, forwards, options.qemu) if by_libvirt else None,
        virtualbox=None if by_libvirt else plan.virtualbox(spec, console, options.virtualbox),
    )


def _box(session: Session, record: Record, provider: Provider) -> VagrantBoxEntry:
    """The box by name, and where its file is once it is made; a machine that is there needs none."""
    if not record.image:
        return VagrantBoxEntry(name=f"lab/{guest_image.UBUNTU}", url=None, sha256=None)
    there = boxes.known(session.settings.cache_dir, record.image, provider, record.disk_gib)
    return VagrantBoxEntry(
        name=boxes.named(record.image, record.disk_gib),
        url=there.path.as_uri() if there else None,
        sha256=there.sha256 if there else None,
    )

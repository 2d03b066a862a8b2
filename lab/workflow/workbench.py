"""One lab and the tools to work on it: engine, machine, guest, emulator, the ladder's site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lab import emulators, engines
from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.core.similar import choices
from lab.emulators.protocol import Emulator, Reach
from lab.engines.protocol import HELD, LOOPBACK, Engine, Machine, MachineSpec, State, why_dead
from lab.guest import keys
from lab.guest.ssh import Guest
from lab.host.facts import HostFacts
from lab.images import cache
from lab.ladder.site import Site
from lab.model.domain import MAIN, NONE
from lab.records.labs import Lab
from lab.records.record import Instance, Record
from lab.workflow import attached
from lab.workflow.session import Session

GUEST_SSH_PORT = 22


def forward_name(service: str, instance: str) -> str:
    """What the forward of an emulator's service is called: `adb`, or `adb-second` beside the main one."""
    return service if instance == MAIN else f"{service}-{instance}"


class Workbench:
    """Opened by every command that works on a lab. Opening it starts nothing."""

    def __init__(self, session: Session, lab: Lab, record: Record | None = None) -> None:
        """`record` is what to go by where the lab's own cannot be read."""
        self.session = session
        self.lab = lab
        self._known = record
        self._emulators: dict[tuple[str, str, int], Emulator] = {}

    @classmethod
    def open(cls, session: Session, name: str) -> Workbench:
        """The workbench of a lab by name. UsageError when there is none."""
        return cls(session, session.store.get(name))

    def close(self) -> None:
        """Close the connection to the guest, if there is one."""
        if "guest" in self.__dict__:
            self.guest.close()
            del self.__dict__["guest"]

    def forget_what_was(self) -> None:
        """Drop cached guest, machine, engine, emulators."""
        self.close()
        for name in ("machine", "engine"):
            self.__dict__.pop(name, None)
        self._emulators.clear()

    def record(self) -> Record:
        """The lab's record, read anew. UsageError where the lab was never finished being created."""
        return self._known or self.lab.record()

    @cached_property
    def engine(self) -> Engine:
        record = self.record()
        options = replace(self.session.engine_options(record.acceleration), folder=self.lab.vm_folder)
        return self.session.factories.engine(record.engine, options)

    @cached_property
    def keys(self) -> keys.Keys:
        return keys.ensure(self.lab.folder / "keys", self.lab.name)

    @property
    def base_disk(self) -> Path:
        return cache.disk(self.session.images, self.record().image)

    @property
    def spec(self) -> MachineSpec:
        record = self.record()
        return MachineSpec(
            uuid=record.uuid,
            name=record.name,
            folder=self.lab.vm_folder,
            base_disk=self.base_disk,
            seed=self.lab.folder / "seed.iso",
            cpus=record.cpus,
            memory_mib=record.memory_mib,
            disk_gib=record.disk_gib,
            paravirt=record.paravirt,
            nested=record.nested,
            asked=not attached.is_attached(record),
        )

    @cached_property
    def machine(self) -> Machine:
        return self.engine.machine(self.spec, self.lab.journal)

    def machine_state(self) -> State:
        """The machine's state; absent for a lab that has none yet."""
        record = self.lab.read()
        return self.machine.status() if record and record.image else State.ABSENT

    def state_of_vm(self) -> State:
        """The state of the lab's VM. UsageError for a lab that has none yet."""
        if not self.record().image:
            raise UsageError(
                f"lab {self.lab.name} has no VM yet", hint=f"`invoke lab.up --name {self.lab.name}` makes it"
            )
        return self.machine.status()

    def require_running(self, what: str = "an emulator") -> None:
        """Raise BlockedError unless the lab's VM runs, which `what` needs."""
        self.lab.record()
        state = self.machine_state()
        if state is not State.RUNNING:
            task = "lab.resume" if state in {State.SUSPENDED, *HELD} else "lab.up"
            raise BlockedError(
                f"{what} needs a VM that runs, and that of lab {self.lab.name} is {state}",
                hint=f"`invoke {task} --name {self.lab.name}`",
            )

    @cached_property
    def guest(self) -> Guest:
        """L1 over SSH; connects when first used. BlockedError when its VM was never started."""
        return self.new_guest()

    def new_guest(self) -> Guest:
        """A connection of its own, for work that goes on beside the rest; the caller closes it."""
        if attached.is_attached(self.record()):
            return attached.guest(self.lab, self.record())
        forward = self.record().forwards.get("ssh")
        if forward is None:
            raise BlockedError(
                f"lab {self.lab.name} has no SSH port: its VM was never started",
                hint=f"`invoke lab.up --name {self.lab.name}`",
            )
        known = keys.write_known_hosts(
            self.lab.folder / "keys" / "known_hosts", self.keys.host, forward.host_port
        )
        make = self.session.factories.guest
        return make(port=forward.host_port, key=self.keys.user.private, known_hosts=known)

    def log_in(self, deadline: Deadline, make: Callable[[], Guest] | None = None) -> Guest:
        """Log in to L1 as soon as it lets lab in: by the shared connection, or by the one that `make` gives.

        Raises LabError at once when the VM is dead, DeadlineError naming the last obstacle.
        """
        alive = lambda: why_dead(self.machine)  # noqa: E731
        return self.session.factories.log_in(make or (lambda: self.guest), deadline, alive)

    def changed_image(self) -> None:
        """Forget the machine: the image it stands on was chosen just now."""
        self.__dict__.pop("machine", None)

    def main_emulator(self) -> Emulator | None:
        """The emulator the ladder is climbed on; None when the lab was made without one."""
        return self.emulator(MAIN) if MAIN in self.record().instances else None

    def instance(self, name: str) -> Instance:
        """What the record says of one emulator. UsageError with the nearest name when there is none."""
        known = self.record().instances
        if name in known:
            return known[name]
        near = choices(name, known)
        lab = "" if self.lab.name == "default" else f" --name {self.lab.name}"
        raise UsageError(
            f"lab {self.lab.name} has no emulator {name}",
            hint=f"there is: {near}" if near else f"`invoke emulator.up NAME{lab}` starts one",
        )

    def emulator(self, name: str) -> Emulator:
        """An emulator of the lab by name; always the same object. UsageError when there is none."""
        instance = self.instance(name)
        redact.register(instance.nonce)  # Docker's description of the container has it: it is evidence
        key = (name, instance.kind, instance.index)
        if key not in self._emulators:
            make = self.session.factories.emulator
            self._emulators[key] = make(instance.kind, self.place(name, instance.index))
        return self._emulators[key]

    def reach(self, name: str = MAIN) -> Reach:
        """How an emulator is reached."""
        nonce = self.instance(name).nonce
        return Reach(self.guest, self.addresses(name), self.lab.adb_folder, nonce)

    def addresses(self, name: str) -> dict[str, str]:
        """An emulator's services and where on the host each answers, 127.0.0.1:port."""
        addresses = {}
        for forward, access in self.record().forwards.items():
            service, _, instance = forward.partition("-")
            if service != "ssh" and (instance or MAIN) == name:
                addresses[service] = f"{LOOPBACK}:{access.host_port}"
        return addresses

    def guest_ports(self) -> dict[str, int]:
        """The name of every forward the lab should have, and the VM's port behind it."""
        ports = {} if attached.is_attached(self.record()) else {"ssh": GUEST_SSH_PORT}
        for name in self.record().instances:
            ports |= self.ports_of(name)
        return ports

    def ports_of(self, name: str) -> dict[str, int]:
        """The same of one emulator."""
        return {forward_name(service, name): port for service, port in self.emulator(name).ports.items()}

    def place(self, instance: str = MAIN, index: int = 0) -> emulators.Place:
        """Where an emulator of this lab lives."""
        record = self.record()
        return emulators.Place(
            lab_uuid=record.uuid,
            cache=self.session.images,
            secrets=self.lab.folder / "keys",
            state=self.session.settings.state_dir,
            journal=self.lab.journal,
            settings=self.session.settings,
            instance=instance,
            index=index,
            debian_mirror=self._debian_mirror,
            vm_cpus=record.cpus,
            vm_memory_mib=record.memory_mib,
            # The disk of a machine that is somebody else's was not asked for.
            vm_disk_gib=record.disk_gib if record.engine in engines.names() else 0,
            **attached.place(self.lab, record),
        )

    def _debian_mirror(self) -> str:
        from lab.workflow import mirror  # what builds images is of no use to most tasks

        return mirror.debian(self.session)

    def host(self) -> HostFacts:
        """What the lab's L0 is: this host; where the lab is somebody's machine, that machine itself."""
        known = attached.host(self.lab) if attached.is_attached(self._known or self.lab.read()) else None
        return known or self.session.factories.host()

    def site(self, *, boot_seconds: float, instance: str = MAIN) -> Site:
        """What the ladder's checks look at. Read when they look: a port may change under way."""
        return Site(
            host=self.host(),
            tools=EmulatorTools(self, instance),
            emulator=self.emulator(instance) if instance in self.record().instances else None,
            adb_folder=self.lab.adb_folder,
            boot_seconds=boot_seconds,
            nested_seconds=self.session.settings.deadlines.nested_boot,
        )


@dataclass(frozen=True)
class EmulatorTools:
    """The lab's tools (lab.ladder.site.Tools) for one of its emulators; `name` need not exist."""

    bench: Workbench
    name: str

    @property
    def engine(self) -> Engine:
        return self.bench.engine

    @property
    def machine(self) -> Machine:
        return self.bench.machine

    @property
    def guest(self) -> Guest:
        return self.bench.guest

    def log_in(self, deadline: Deadline) -> Guest:
        return self.bench.log_in(deadline)

    @property
    def adb_address(self) -> str:
        return self.bench.addresses(self.name).get("adb", "")

    @property
    def nonce(self) -> str:
        return self._instance.nonce

    @property
    def failed_launches(self) -> list[str]:
        return self._instance.failed_launches

    @property
    def known_boot_id(self) -> str:
        return self.bench.record().boot_id

    def reach(self) -> Reach:
        return self.bench.reach(self.name)

    @property
    def _instance(self) -> Instance:
        return self.bench.record().instances.get(self.name) or Instance(kind=NONE, index=0)

"""One lab and the tools to work on it: engine, machine, guest, emulator, the ladder's site."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from lab import emulators, engines
from lab.commands.session import Session
from lab.emulators.protocol import Emulator
from lab.engines.protocol import LOOPBACK, Engine, Machine, MachineSpec, State
from lab.errors import BlockedError
from lab.guest import keys
from lab.guest.ssh import Guest
from lab.host import facts as host_facts
from lab.ladder.site import Site
from lab.store import Lab, Record

GUEST_SSH_PORT = 22
_DISK = "disk.qcow2"


class Workbench:
    """Opened by every command that works on a lab. Opening it starts nothing."""

    def __init__(self, session: Session, lab: Lab) -> None:
        self.session = session
        self.lab = lab

    @classmethod
    def open(cls, session: Session, name: str) -> Workbench:
        """The workbench of a lab by name. UsageError when there is none."""
        return cls(session, session.store.get(name))

    def close(self) -> None:
        """Close the connection to the guest, if there is one."""
        if "guest" in self.__dict__:
            self.guest.close()
            del self.__dict__["guest"]

    @property
    def record(self) -> Record:
        return self.lab.record()

    @cached_property
    def engine(self) -> Engine:
        record = self.record
        return engines.engine(record.engine, self.session.engine_options(record.acceleration))

    @cached_property
    def keys(self) -> keys.Keys:
        return keys.ensure(self.lab.folder / "keys", self.lab.name)

    @property
    def base_disk(self) -> Path:
        return self.session.images / self.record.image / _DISK

    @property
    def spec(self) -> MachineSpec:
        record = self.record
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
        )

    @cached_property
    def machine(self) -> Machine:
        return self.engine.machine(self.spec, self.lab.journal)

    def machine_state(self) -> State:
        """The machine's state; absent for a lab that has none yet."""
        record = self.lab.read()
        return self.machine.status() if record and record.image else State.ABSENT

    @cached_property
    def guest(self) -> Guest:
        """L1 over SSH; connects when first used. BlockedError when its VM was never started."""
        return self.new_guest()

    def new_guest(self) -> Guest:
        """A connection of its own, for work that goes on beside the rest; the caller closes it."""
        forward = self.record.forwards.get("ssh")
        if forward is None:
            raise BlockedError(
                f"lab {self.lab.name} has no SSH port: its VM was never started",
                hint=f"`invoke lab.up --name {self.lab.name}`",
            )
        known = keys.write_known_hosts(
            self.lab.folder / "keys" / "known_hosts", self.keys.host, forward.host_port
        )
        return Guest(port=forward.host_port, key=self.keys.user.private, known_hosts=known)

    def changed_image(self) -> None:
        """Forget the machine: the image it stands on was chosen just now."""
        self.__dict__.pop("machine", None)

    @cached_property
    def emulator(self) -> Emulator | None:
        record = self.record
        if record.emulator == emulators.NONE:
            return None
        return emulators.emulator(record.emulator, self.place())

    def place(self, instance: str = emulators.MAIN, index: int = 0) -> emulators.Place:
        """Where an emulator of this lab lives."""
        return emulators.Place(
            lab_uuid=self.record.uuid,
            cache=self.session.images,
            secrets=self.lab.folder / "keys",
            state=self.session.settings.state_dir,
            journal=self.lab.journal,
            instance=instance,
            index=index,
        )

    @property
    def adb_address(self) -> str:
        """127.0.0.1:port, or empty when the lab has no ADB forward."""
        forward = self.record.forwards.get("adb")
        return f"{LOOPBACK}:{forward.host_port}" if forward else ""

    @property
    def nonce(self) -> str:
        """What L2 was given at launch; empty before the first one."""
        return self.record.nonce

    @property
    def failed_launches(self) -> list[str]:
        """What ended the launches of L2 before the one that counts."""
        return self.record.failed_launches

    def site(self, *, boot_seconds: float) -> Site:
        """What the ladder's checks look at. Read when they look: a port may change under way."""
        return Site(
            host=host_facts.read(),
            tools=self,
            emulator=self.emulator,
            adb_folder=self.lab.adb_folder,
            boot_seconds=boot_seconds,
            nested_seconds=self.session.settings.deadlines.nested_boot,
        )

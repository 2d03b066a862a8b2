"""One lab VM that is Vagrant's. What it is like is asked each time, of its hypervisor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InconclusiveError, LabError, UsageError
from lab.core.journal import Journal
from lab.engines import refusals
from lab.engines.protocol import HELD, Forward, MachineSpec, PortTakenError, Snapshot, State
from lab.engines.vagrant import link as links
from lab.engines.vagrant.hypervisor import Hypervisor
from lab.engines.vagrant.libvirt import VagrantLibvirt
from lab.engines.vagrant.link import VagrantLink
from lab.engines.vagrant.program import Vagrant
from lab.engines.vagrant.vboxmanage import VagrantVirtualBox

_UP_SECONDS = 1800.0
_FORCE_SECONDS = 120.0
_LOG = "vagrant.log"


def at_hypervisor(link: VagrantLink) -> Hypervisor | None:
    """The machine at its hypervisor, which may not know it; None when Vagrant keeps no id of it."""
    identity = Vagrant(link.root, link.machine).identity(link.provider)
    if not identity:
        return None
    return VagrantLibvirt(identity) if link.provider == "libvirt" else VagrantVirtualBox(identity)


def state_of(link: VagrantLink) -> State:
    """The machine's state, whether or not a lab is tied to it."""
    hypervisor = at_hypervisor(link)
    return hypervisor.state() if hypervisor else State.ABSENT


class VagrantMachine:
    """lab.engines.protocol.Machine through Vagrant. Snapshots are left to Vagrant's own commands."""

    def __init__(self, spec: MachineSpec, journal: Journal) -> None:
        self.spec = spec
        self._journal = journal

    # Power

    def create(self) -> None:
        """Nothing: `vagrant up` makes it."""
        self.spec.folder.mkdir(parents=True, exist_ok=True)

    def start(self, forwards: Sequence[Forward]) -> None:
        """`vagrant up`, without its provisioning, which is lab's own and under way."""
        if self.status() is State.RUNNING:
            return
        link = self._link
        entrance = [item for item in link.built_in if item.name == "ssh"]
        if self.status() is not State.ABSENT and entrance and entrance[0] not in forwards:
            taken = entrance[0].host_port
            raise PortTakenError(
                f"this machine's SSH is on host port {taken} for good, and another program has that port",
                [taken],
                hint="end that program, or `vagrant destroy` and `vagrant up` on another port",
            )
        if link.made and self.status() is State.ABSENT:
            ports = {item.name: (item.host_port, item.guest_port) for item in forwards}
            links.write(self.spec.folder, link.model_copy(update={"forwards": ports}))
        self._act("up", "--provider", link.provider, "--no-provision", deadline=Deadline.after(_UP_SECONDS))
        self._open(forwards)

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        if self.status() not in {State.RUNNING, State.CRASHED, *HELD}:
            return "already"  # a suspended machine's memory is kept
        if self.status() is State.RUNNING:
            try:
                self._act("halt", deadline=deadline)
                return "graceful"
            except DeadlineError:
                pass
        self._act("halt", "--force", deadline=Deadline.after(_FORCE_SECONDS))
        return "forced"

    def suspend(self) -> None:
        state = self.status()
        if state is State.SUSPENDED:
            return
        if state is not State.RUNNING:
            raise refusals.not_running(self.spec.name, "it cannot be suspended")
        self._act("suspend", deadline=Deadline.after(_UP_SECONDS))

    def resume(self, forwards: Sequence[Forward]) -> None:
        state = self.status()
        if state not in {State.SUSPENDED, State.RUNNING, *HELD}:
            raise refusals.not_suspended(self.spec.name)
        if state is not State.RUNNING:
            self._act("resume", "--no-provision", deadline=Deadline.after(_UP_SECONDS))
        self._open(forwards)

    def destroy(self) -> None:
        """`vagrant destroy` for a machine of lab's own Vagrantfile; any other is left as it is."""
        link = links.read(self.spec.folder)
        if link is None and self.spec.folder.is_dir() and any(self.spec.folder.iterdir()):
            raise InconclusiveError(
                f"which of Vagrant's machines lab {self.spec.name} is was lost, so nothing was removed",
                hint="`vagrant global-status` lists them; `vagrant destroy` it if lab's Vagrantfile made it; "
                f"then `rm -r {self.spec.folder}`, and destroy the lab",
                evidence=[self.spec.folder],
            )
        if link is not None and link.made and self.status() is not State.ABSENT:
            self._act("destroy", "--force", deadline=Deadline.after(_UP_SECONDS))
        for name in (_LOG, "console.log", links.FILE):  # the link last: without it nothing is known
            (self.spec.folder / name).unlink(missing_ok=True)

    # Saved states

    def snapshot(self, name: str) -> None:  # noqa: ARG002
        self._refuse()

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:  # noqa: ARG002
        self._refuse()

    def snapshots(self) -> list[Snapshot]:
        self._refuse()

    # What is

    def status(self) -> State:
        link = links.read(self.spec.folder)
        return state_of(link) if link else State.ABSENT

    def forwards(self) -> list[Forward]:
        hypervisor = self._found()
        if hypervisor is None or hypervisor.state() is not State.RUNNING:
            return []
        return hypervisor.forwards({ports: name for name, ports in self._link.forwards.items()})

    def add_forward(self, forward: Forward) -> None:
        hypervisor = self._running("no forwards")
        there = self.forwards()
        if forward in there:
            return
        for item in there:
            if item.name == forward.name:
                hypervisor.remove_forward(item)
        # First: one that listens is known by its name.
        self._remember({forward.name: (forward.host_port, forward.guest_port)})
        answer = hypervisor.add_forward(forward)
        if forward not in self.forwards():
            raise PortTakenError(
                f"port {forward.host_port} of the loopback cannot be bound",
                [forward.host_port],
                hint="another program has it; configure another port, or let lab choose one",
                tail=answer,
            )

    def remove_forward(self, name: str) -> None:
        for item in self.forwards():
            if item.name == name:
                self._running("no forwards").remove_forward(item)

    def settings(self) -> dict[str, str]:
        hypervisor = self._found()
        if hypervisor is None or hypervisor.state() is not State.RUNNING:
            return {}
        return hypervisor.settings() | {"vagrant_provider": self._link.provider}

    def console(self) -> Path:
        return self.spec.folder / "console.log"

    def screenshot(self, target: Path) -> None:
        self._running("no screen").screenshot(target)

    def logs(self) -> list[Path]:
        hypervisor = self._found()
        theirs = hypervisor.logs() if hypervisor and hypervisor.state() is not State.ABSENT else []
        own = self.spec.folder / _LOG
        return [*theirs, *([own] if own.is_file() else [])]

    # Parts

    @property
    def _link(self) -> VagrantLink:
        link = links.read(self.spec.folder)
        if link is None:
            raise LabError(
                f"lab {self.spec.name} does not say which of Vagrant's machines it is",
                hint=f"`invoke lab.attach --vagrant NAME --name {self.spec.name}` tells it",
            )
        return link

    def _found(self) -> Hypervisor | None:
        link = links.read(self.spec.folder)
        return at_hypervisor(link) if link else None

    def _running(self, what: str) -> Hypervisor:
        hypervisor = self._found()
        if hypervisor is None or hypervisor.state() is not State.RUNNING:
            raise refusals.not_running(self.spec.name, f"it has {what}")
        return hypervisor

    def _open(self, forwards: Sequence[Forward]) -> None:
        for forward in forwards:
            self.add_forward(forward)

    def _remember(self, forwards: dict[str, tuple[int, int]]) -> None:
        link = self._link
        links.write(self.spec.folder, link.model_copy(update={"forwards": {**link.forwards, **forwards}}))

    def _act(self, verb: str, *flags: str, deadline: Deadline) -> None:
        link = self._link
        self.spec.folder.mkdir(parents=True, exist_ok=True)
        Vagrant(link.root, link.machine).act(verb, *flags, deadline=deadline, log=self.spec.folder / _LOG)

    def _refuse(self) -> NoReturn:
        machine = self._link.machine
        raise UsageError(
            f"the snapshots of lab {self.spec.name} are Vagrant's, not lab's",
            hint=f"`vagrant snapshot save {machine} NAME` in {self._link.root}, or list, restore, delete",
        )

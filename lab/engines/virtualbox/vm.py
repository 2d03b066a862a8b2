"""One VM as VirtualBox knows it, by its UUID: asked, looked at, waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import DeadlineError, LabError
from lab.engines import refusals
from lab.engines.protocol import MachineSpec, State
from lab.engines.virtualbox.transport import MissingError, Transport

STATES = {
    "": State.ABSENT,
    "Running": State.RUNNING,
    "Paused": State.PAUSED,
    "Saved": State.SUSPENDED,
    # Since 7.0: its process died while it loaded the saved memory, which is still whole.
    "AbortedSaved": State.SUSPENDED,
    # Its memory is in the guest's own hands no more: power on anew.
    "PoweredOff": State.STOPPED,
    "Aborted": State.STOPPED,
    "Stuck": State.CRASHED,  # VirtualBox's guru meditation
}
"""What VirtualBox's settled states are to lab."""

_KILL_SECONDS = 5.0
_SLOWEST_MIB_PER_SECOND = 20


@dataclass(frozen=True)
class VmPatience:
    """How long VirtualBox is waited for, in seconds."""

    settle: float = 60.0
    """For a state of passage to end."""
    linger: float = 30.0
    """For a VM process whose VBoxSVC died: it ends by itself, about 15 s later."""
    listen: float = 5.0
    """For a forward that was added to listen."""
    ask_again: float = 5.0
    """Until a guest's power button is pressed again."""


class RegisteredVm:
    """The VM of `spec`, asked over the transport that `connect` gives. Its methods raise LabError."""

    def __init__(self, spec: MachineSpec, connect: Callable[[], Transport], patience: VmPatience) -> None:
        self._spec = spec
        self._patience = patience
        self._connect = connect

    def call(self, operation: str, deadline: Deadline | None = None, **words: Any) -> Any:
        """The result of an operation that is not about a VM that VirtualBox has."""
        return self._connect().call(operation, deadline, **words)

    def ask(self, operation: str, deadline: Deadline | None = None, **words: Any) -> Any:
        """The result of an operation on this VM."""
        return self.call(operation, deadline, uuid=self._spec.uuid, **words)

    def move_memory(self, operation: str, **words: Any) -> None:
        """An operation that writes or reads the VM's whole memory, with the time that takes."""
        seconds = 120 + self._spec.memory_mib / _SLOWEST_MIB_PER_SECOND
        self.ask(operation, Deadline.after(seconds), **words)

    def look(self) -> dict[str, Any]:
        """Its `state` in VirtualBox's words (empty: there is no such VM), and the file of its `settings`."""
        facts: dict[str, Any] = self.ask("look")
        if not facts["accessible"]:
            raise LabError(
                f"VirtualBox cannot read the settings of lab {self._spec.name}",
                evidence=[facts["settings"]],
                hint=f"`invoke lab.destroy --name {self._spec.name}` removes what is left of it",
            )
        return facts

    def settled(self) -> str:
        """VirtualBox's own name of the state, once it is none of passage. DeadlineError when it stays so."""

        def state() -> str:
            name = str(self.look()["state"])
            if name not in STATES:
                raise NotYet(name)
            return name

        return poll(state, Deadline.after(self._patience.settle), "a settled state of the VM", every=0.1)

    def is_off(self, deadline: Deadline) -> bool:
        """Whether it powers off before the deadline."""

        def off() -> bool:
            state = self.look()["state"]
            if state not in ("PoweredOff", "Aborted"):
                raise NotYet(state)
            return True

        try:
            return poll(off, deadline, "the VM's power-off")
        except DeadlineError:
            return False

    def snapshots(self) -> list[dict[str, Any]]:
        """As the operation of that name gives them; empty where VirtualBox has no such VM."""
        try:
            listed: list[dict[str, Any]] = self.ask("snapshots")
        except MissingError:
            return []
        return listed

    def snapshot(self, name: str) -> dict[str, Any]:
        """The snapshot of that name. Raises UsageError with the nearest names."""
        known = {item["name"]: item for item in self.snapshots()}
        if name not in known:
            raise refusals.no_snapshot(name, known)
        return known[name]

    def end_stale_process(self) -> None:
        """Where VirtualBox says it is off, a process still there lost its VBoxSVC, and ends in a moment."""
        stale = vm_processes(self._spec.uuid)
        if not stale:
            return
        _, alive = psutil.wait_procs(stale, timeout=self._patience.linger)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=_KILL_SECONDS)


def vm_processes(uuid: str) -> list[psutil.Process]:
    """The VirtualBox processes that run this VM: known by its UUID among their arguments."""
    running = []
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
        except psutil.Error:
            continue
        if argv and Path(argv[0]).name.startswith(("VBoxHeadless", "VirtualBoxVM")) and uuid in argv:
            running.append(process)
    return running

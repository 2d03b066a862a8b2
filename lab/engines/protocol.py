"""What every engine offers. An engine drives L0's hypervisor; a machine is one lab VM (L1) on it.

Words here are lab's own: nothing of one hypervisor's vocabulary belongs in this file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError
from lab.core.journal import Journal

LOOPBACK = "127.0.0.1"
"""The only host address a forward ever binds."""


SOFTWARE: Mapping[str, Literal["emulated", "none"]] = {"tcg": "emulated", "interpreter": "none"}
"""The accelerations in which no processor runs L1's instructions, software does; and what nests there."""


class State(StrEnum):
    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    DISK_FULL = "disk full"
    """Paused by the hypervisor, for a write found no space on the host's disk: `resume` first needs some."""
    SUSPENDED = "suspended"
    """Its memory is saved on disk; `resume` brings it back."""
    CRASHED = "crashed"
    """The hypervisor gave it up and keeps what is left: it answers nothing, and `start` ends it first."""


@dataclass(frozen=True)
class Forward:
    """A TCP port of the host's loopback that reaches a port of the VM."""

    name: str
    host_port: int
    guest_port: int


@dataclass(frozen=True)
class MachineSpec:
    """What a machine is made of. Sizes are MiB and GiB."""

    uuid: str
    """lab's own marker: the machine, its process and its files are known by it, never by name."""
    name: str
    folder: Path
    """The engine's own folder of this lab: everything it creates is in there."""
    base_disk: Path
    """A read-only qcow2 image shared by all labs; the machine writes to an overlay of its own."""
    seed: Path
    """The NoCloud ISO."""
    cpus: int
    memory_mib: int
    disk_gib: int
    paravirt: Literal["kvm", "none", "default", "unknown"] = "kvm"
    """`unknown`: it is another program's VM, and lab cannot tell."""
    nested: bool = True
    asked: bool = True
    """These are what lab asked for; False: it is somebody's machine, which is as it is."""


@dataclass(frozen=True)
class Availability:
    """Whether an engine can start a 64-bit VM on this host, in one sentence, and what would help."""

    usable: bool
    why: str
    hint: str = ""
    broken: bool = False
    """It is installed on a host that it is made for, and something there keeps it from working."""


@dataclass(frozen=True)
class EngineFacts:
    """What a verdict's cell says of the engine."""

    engine: str
    version: str
    acceleration: str
    """How L1's instructions run: those in SOFTWARE are emulation, all others hardware."""
    nesting: Literal["hardware", "emulated", "none"]
    """What provides L1's virtualization extensions."""
    how: str
    """One sentence: why this acceleration, and how nesting is provided."""
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineFinding:
    """One thing `lab.doctor` says of an engine on this host."""

    name: str
    good: bool
    observed: str
    hint: str = ""
    source: str = ""
    """Where the knowledge behind it is from, when it is not an observation of lab's own."""


@dataclass(frozen=True)
class Snapshot:
    name: str
    created: datetime
    """UTC."""
    live: bool
    """True when it holds the machine's memory too, so restoring it gives a running machine."""


class PortTakenError(LabError):
    """A forward's host port could not be bound. `ports` are those refused, empty if not known."""

    def __init__(self, what: str, ports: Sequence[int] = (), **more: object) -> None:
        super().__init__(what, **more)  # type: ignore[arg-type]
        self.ports = list(ports)


class Machine(Protocol):
    """One lab VM. Every method may be called again after a crash and converges.

    Methods raise LabError (or a subclass) with the hypervisor's own words in `tail`.
    """

    spec: MachineSpec

    def create(self) -> None:
        """Make the overlay disk and whatever else start needs. Existing parts are kept."""

    def start(self, forwards: Sequence[Forward]) -> None:
        """Power on with these forwards, detached: it outlives this process. No-op when running.

        Raises PortTakenError when a host port cannot be bound; nothing is left running then.
        """

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        """Ask the guest to power off; when the deadline passes, pull the plug."""

    def suspend(self) -> None:
        """Save memory and devices to disk and end the VM's process."""

    def resume(self, forwards: Sequence[Forward]) -> None:
        """Bring a suspended machine back, or let a paused one run."""

    def snapshot(self, name: str) -> None:
        """Save disk, and memory too when it runs. Raises UsageError if the name exists."""

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:
        """Go back to a snapshot: running if it was live, else stopped."""

    def snapshots(self) -> list[Snapshot]: ...

    def destroy(self) -> None:
        """End the process and remove all this engine created for it, whatever is half made."""

    def status(self) -> State: ...

    def forwards(self) -> list[Forward]:
        """The forwards of the running machine; empty when it does not run."""

    def add_forward(self, forward: Forward) -> None:
        """Have this forward on the running machine too, in the place of one of its name.

        No-op when it is there. Raises PortTakenError when the host port cannot be bound, and UsageError
        when the machine does not run. A machine started anew has the forwards it is started with.
        """

    def remove_forward(self, name: str) -> None:
        """Close a forward of the running machine. No-op when it has none of that name, or does not run."""

    def settings(self) -> dict[str, str]:
        """What the hypervisor says it set, read back from it (not from the spec).

        At least `cpus`, `memory_mib`, `nested`, `paravirt`, `acceleration`; NESTING_REFUSED where its log
        says that the VM's processor has no virtualization extensions, whatever was set.
        """

    def console(self) -> Path:
        """The file that receives the serial console."""

    def screenshot(self, target: Path) -> None:
        """Write what the VM's screen shows as PNG."""

    def logs(self) -> list[Path]:
        """The engine's own log files of this machine: evidence."""


NESTING_REFUSED = "nesting_refused"
"""The key of that line of the log among a machine's settings."""

HELD = frozenset({State.PAUSED, State.DISK_FULL})
"""The states of a machine whose process is there and stands still: its ports are still its own."""


def why_dead(machine: Machine) -> str | None:
    """Why nothing can answer in this machine; None while it runs."""
    state = machine.status()
    if state is State.DISK_FULL:
        return f"the host's disk is full, and it stands still: {machine.spec.folder}"
    return None if state is State.RUNNING else f"it is {state}"


class DiskFullError(BlockedError):
    """The hypervisor paused the machine, for the host's disk is full."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(
            f"the host's disk is full, so the machine {name} stands still",
            hint=f"free some space there, then `invoke lab.resume --name {name}`",
            evidence=[folder],
        )


def refuse_full(folder: Path, name: str, least: int = 256 << 20) -> None:
    """Raise DiskFullError while fewer than `least` bytes are free there: a VM let run would stop at once."""
    if shutil.disk_usage(folder).free < least:
        raise DiskFullError(folder, name)


class NestingRefusedError(BlockedError):
    """The hypervisor does not start a VM that is to have virtualization extensions."""


class Engine(Protocol):
    name: str

    def availability(self) -> Availability: ...

    def facts(self) -> EngineFacts: ...

    def findings(self, folders: Sequence[Path]) -> list[EngineFinding]:
        """What a person should know about this engine on this host, the good and the bad.

        `folders` are the engine's own folders of the labs here: their last runs left logs in them.
        """

    def caution(self) -> str:
        """What a nested start can do to this host, to be agreed to once; empty when nothing is known."""

    def machine(self, spec: MachineSpec, journal: Journal) -> Machine: ...

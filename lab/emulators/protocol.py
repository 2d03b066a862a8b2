"""What every emulator offers: a container in L1 whose payload answers ADB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest.ssh import Guest
from lab.steps import Step


@dataclass(frozen=True)
class ContainerState:
    """What Docker says of the container."""

    exists: bool
    running: bool
    health: str = ""
    """`healthy`, `unhealthy`, `starting`, or empty where the image has no health check."""
    exit_code: int | None = None
    image: str = ""
    """The image's content id, sha256:…"""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NestedProof:
    """What L2 itself said: in the container's log, or over ADB."""

    nonce: str
    hypervisor: str
    """CPUID leaf 0x40000000's signature as L2 reads it: KVMKVMKVM under KVM."""
    clocksource: str
    boot_id: str
    """L2's own kernel boot id: differs from L1's, which a container would show."""
    boot_completed: bool
    kernel: str
    uptime_seconds: float
    """L2's uptime at the time it was asked."""
    seconds: float | None = None
    """From the launch of L2's monitor until adbd listens in L2, where that was measured."""


class NestedFailedError(LabError):
    """Evidence that L2 does not run under KVM here: its monitor said so. `tail` has its words."""


class Emulator(Protocol):
    name: str
    android: bool
    """Whether it is Android: only then can it bear on the `android` claim."""
    adb_port: int
    """The port of L1 on which its ADB answers."""

    def image_id(self) -> str:
        """The image as the cell names it: name and content hash."""

    def prepare(self, step: Step) -> None:
        """Build or fetch the image on the host. Needs no VM, so it may run while the VM boots."""

    def upload(self, guest: Guest, step: Step) -> None:
        """Copy the prepared image into L1, checked there; Docker need not be installed yet."""

    def load(self, guest: Guest, step: Step) -> None:
        """Bring the image into L1's Docker (uploading it if need be); no-op when it is there."""

    def start(self, guest: Guest, step: Step, *, nonce: str) -> None:
        """Start the container (replacing an old one that is not running as it should)."""

    def runs_with(self, state: ContainerState, nonce: str) -> bool:
        """Whether `state` is of a running container of today's image that was given `nonce`."""
        ...

    def booted(self, guest: Guest, deadline: Deadline) -> NestedProof:
        """Wait until L2 reports inside the container; no ADB from the host is needed.

        Raises NestedFailedError when the container itself shows that L2 cannot run, and
        DeadlineError when nothing was heard, which shows nothing.
        """

    def time_boot(self, guest: Guest, acceleration: Literal["kvm", "tcg"], deadline: Deadline) -> float:
        """Boot another L2 of the same image and end it: its seconds, measured as NestedProof.seconds is."""
        ...

    def state(self, guest: Guest) -> ContainerState: ...

    def logs(self, guest: Guest) -> dict[str, str]:
        """Evidence: container log, payload console, …; file name to text."""

    def stop(self, guest: Guest) -> None: ...

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        """Ask L2 over ADB, from the host, at `adb_address` (127.0.0.1:port)."""

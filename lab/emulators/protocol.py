"""What every emulator offers: a container in L1 whose payload answers ADB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lab.core.deadline import Deadline
from lab.core.errors import InconclusiveError, LabError
from lab.core.steps import Step
from lab.guest.ssh import Guest

Speed = Literal["hardware", "nested", "shadow"]
"""What L2's processor is: this machine's own; one in a VM with EPT or NPT; one without, or emulated."""

Tell = Callable[[str, str], None]
"""Called with a log's name and one line of it."""


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
    hypervisor: str | None
    """The hypervisor's signature as L2 reads it; None where that was not told. On x86 CPUID leaf 0x40000000:
    KVMKVMKVM under KVM. On ARM KVM-SMCCC under KVM: it answered Linux's call for its UUID."""
    clocksource: str
    boot_id: str
    """L2's own kernel boot id: differs from L1's, which a container would show."""
    boot_completed: bool
    kernel: str
    machine: str = ""
    """What L2 is, as `uname -m` there says: x86_64, aarch64; empty where that was not told."""
    seconds: float | None = None
    """From the launch of L2's monitor until adbd listens in L2, where that was measured."""


class NestedFailedError(LabError):
    """Evidence that L2 does not run under KVM here: KVM itself said so. `tail` has the words."""


class NestedLostError(InconclusiveError):
    """L2 was launched and ended: by a signal, or without a word that says why. Evidence of nothing.

    Launching it anew may go well. `tail` has what was heard last.
    """


@dataclass(frozen=True)
class Reach:
    """How one emulator is reached: its VM over SSH, its services on the host's loopback."""

    guest: Guest
    addresses: Mapping[str, str]
    """Service (as in Emulator.ports) to 127.0.0.1:port."""
    adb_folder: Path
    nonce: str
    """What its L2 was given at launch; empty before the first launch."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `ok` is None when it could not be seen (yet)."""

    name: str
    ok: bool | None
    observed: str


@dataclass(frozen=True)
class BootStage:
    """A stage of the boot. `seconds` is from the container's start, on L1's clock; None: not reached."""

    name: str
    seconds: float | None


@dataclass(frozen=True)
class Diagnosis:
    """A way to fail that was recognised, with the lines that show it."""

    name: str
    """One word or two with a dash, for tables: `boot-loop`."""
    what: str
    lines: tuple[str, ...]
    hint: str
    final: bool = False
    """Waiting longer will not mend it."""
    refutes: bool = False
    """It is evidence against the rung; without this nothing but time or lab itself failed."""
    again: bool = False
    """Launching the emulator anew may mend it: a signal ended it, or nothing says what did."""


MISSING_RESOURCES = frozenset({"out-of-memory", "disk-full", "unaccelerated"})
"""Diagnoses that say what the emulator was not given, rather than what does not work."""


@dataclass(frozen=True)
class Health:
    """What an Android emulator looks like now. `booted` and `usable` rest on checks of lab's own."""

    booted: bool
    usable: bool
    checks: tuple[Check, ...]
    timeline: tuple[BootStage, ...]
    diagnoses: tuple[Diagnosis, ...]
    """The most telling first. A usable emulator may have some too (its own watcher died)."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Android's release, its build fingerprint, the image's digest, …"""


class Emulator(Protocol):
    name: str
    android: bool
    """Whether it is Android: only then can it bear on the `android` claim."""
    ports: Mapping[str, int]
    """Its services by name, and the port of L1 on which each answers; `adb` is always one of them."""
    own_clock: bool
    """Whether L2's kernel is lab's own, so that it must run on kvm-clock; another may prefer the TSC."""

    @property
    def double(self) -> bool:
        """What was seen of it calls itself a test double: it is not Android, whatever it answers."""
        ...

    memory_mib: int
    """What its container may take of the VM's memory; 0 where that is too little to ask for."""

    def boot_seconds(self, speed: Speed) -> float:
        """How long its payload may take to boot, and as long again to be usable; 0: as long as any L2."""
        ...

    def image_id(self) -> str:
        """The image as the cell names it: name and content hash."""

    def to_be_fetched(self) -> bool:
        """Whether prepare() would fetch gigabytes: that is for a VM in which KVM was seen to work."""

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

        Raises NestedFailedError when KVM itself said that it does not run L2, NestedLostError when L2 ended
        without that, and DeadlineError when nothing was heard, which shows nothing.
        """

    def time_boot(self, guest: Guest, acceleration: Literal["kvm", "tcg"], deadline: Deadline) -> float:
        """Boot another L2 of the same image and end it: its seconds, measured as NestedProof.seconds is."""
        ...

    def state(self, guest: Guest) -> ContainerState: ...

    def logs(self, guest: Guest) -> dict[str, str]:
        """Evidence: container log, payload console, …; file name to text."""

    def follow(self, guest: Guest, tell: Tell) -> None:
        """Tell the logs a person follows, line by line as they are written, until the container ends.

        Nothing that is a picture of one moment is among them. Raises BlockedError without a container.
        """

    def stop(self, guest: Guest) -> None: ...

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        """Ask L2 over ADB, from the host, at `adb_address` (127.0.0.1:port)."""


class AndroidEmulator(Emulator, Protocol):
    """An emulator whose payload is Android, or says it is."""

    def health(self, reach: Reach) -> Health:
        """Look at everything once. Raises only when L1 itself cannot be reached."""
        ...

    def wait(
        self, reach: Reach, stage: Literal["booted", "usable"], step: Step | None, deadline: Deadline
    ) -> Health:
        """Look again and again until the stage is reached, a final diagnosis is made, or time is up.

        Gives back the last look whichever way it ended; `step`, if there is one, hears of each new
        stage and diagnosis.
        """
        ...

    def screenshot(self, reach: Reach) -> bytes:
        """Android's screen as PNG, taken by its own screencap."""
        ...

    def install(self, reach: Reach, apk: Path, step: Step, deadline: Deadline) -> str:
        """Install an app over ADB; its package name. Raises LabError with the package manager's words."""
        ...

    def browser_url(self, reach: Reach) -> str:
        """The page that shows the screen, its password included: for the user's own browser, never a log."""
        ...

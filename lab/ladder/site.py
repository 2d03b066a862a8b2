"""Where a climb takes place: what the rungs' checks look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab.core.deadline import Deadline
from lab.emulators.protocol import Emulator, NestedProof, Reach, Speed
from lab.engines.protocol import SOFTWARE, Engine, EngineFacts, Machine
from lab.guest.ssh import Guest
from lab.host.facts import HostFacts
from lab.ladder.facts import Facts
from lab.probes.kvm import KvmFacts, Probe


class Tools(Protocol):
    """A lab's tools, asked for anew by each check: building may replace them between two rungs."""

    @property
    def engine(self) -> Engine: ...

    @property
    def machine(self) -> Machine: ...

    @property
    def guest(self) -> Guest: ...

    def log_in(self, deadline: Deadline) -> Guest:
        """Log in to L1 as soon as it lets lab in. Raises LabError when its VM is dead, DeadlineError."""

    @property
    def adb_address(self) -> str:
        """127.0.0.1:port, or empty when there is no emulator."""

    @property
    def nonce(self) -> str:
        """What L2 was given at launch."""

    @property
    def known_boot_id(self) -> str:
        """Of L1's boot that was looked at last; empty when lab has started L1 since."""

    def reach(self) -> Reach:
        """How the emulator that is climbed on is reached."""

    @property
    def failed_launches(self) -> list[str]:
        """What ended the launches of L2 before this one."""


@dataclass
class Site:
    """One lab as the ladder sees it. The second half is filled in by the checks as they climb."""

    host: HostFacts
    tools: Tools
    emulator: Emulator | None
    adb_folder: Path
    boot_seconds: float
    """How long L1 may take to answer over SSH."""
    nested_seconds: float
    """How long L2 may take to answer."""
    adb_seconds: float = 120.0
    """How long ADB may take to reach an L2 that has booted."""
    probe_seconds: float = 180.0
    """How long one functional KVM probe may take, emulated hosts included."""

    engine_facts: EngineFacts | None = None
    container: Probe | None = None
    """The KVM probe in the container that docker.engine ran, if it ran one there."""
    boot_id: str = ""
    booted: NestedProof | None = None
    facts: Facts = field(default_factory=Facts)

    @property
    def kvm(self) -> KvmFacts | None:
        """The KVM probe in L1, once it ran."""
        return self.facts.guest

    def probe_deadline(self) -> Deadline:
        return Deadline.after(self.probe_seconds)

    def boot_wait(self) -> float:
        """How long the emulator's payload may take here, in seconds: to boot, and as long to be usable."""
        return self.emulator.boot_seconds(speed(self.kvm, self.engine_facts)) if self.emulator else 0

    def l2_wait(self) -> float:
        """How long L2 may take to answer, in seconds: no less than its payload may take to boot."""
        return max(self.nested_seconds, self.boot_wait())


def speed(kvm: KvmFacts | None, engine: EngineFacts | None) -> Speed:
    """How fast L2's processor is, by what L1 is and what its processor offers KVM.

    On an L1 that is no VM, the processor runs Android as it would on a desk. Nested, it is about
    four times as slow with EPT or NPT and far slower without, and so is anything emulated.
    """
    emulated = engine is not None and (engine.acceleration in SOFTWARE or engine.nesting == "emulated")
    if emulated or (kvm is not None and kvm.facts.cpu.nested_paging is False):
        return "shadow"
    if kvm is not None and kvm.facts.cpu.hypervisor == "":
        return "hardware"
    return "nested"


def no_emulator(site: Site) -> str:
    """Why no rung can ask an L2 here; empty where there is an emulator."""
    return "" if site.emulator is not None else "no emulator was asked for"


def no_android(site: Site) -> str:
    """Why no rung can ask Android here; empty where there is one."""
    if site.emulator is None:
        return no_emulator(site)
    return "" if site.emulator.android else f"{site.emulator.name} is not Android"

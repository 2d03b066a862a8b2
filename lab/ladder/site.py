"""Where a climb takes place: what the rungs' checks look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.deadline import Deadline
from lab.emulators.protocol import Emulator, NestedProof, Reach
from lab.engines.protocol import Engine, EngineFacts, Machine
from lab.guest.ssh import Guest
from lab.host.facts import HostFacts
from lab.probes.kvm import KvmFacts, Probe


class Tools(Protocol):
    """A lab's tools, asked for anew by each check: building may replace them between two rungs."""

    @property
    def engine(self) -> Engine: ...

    @property
    def machine(self) -> Machine: ...

    @property
    def guest(self) -> Guest: ...

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

    android_seconds: Mapping[str, float] = field(
        default_factory=lambda: {"android_hardware": 180.0, "android_nested": 600.0, "android_shadow": 1800.0}
    )
    """How long Android may take to boot, and as long again to be usable, by what it runs on."""

    engine_facts: EngineFacts | None = None
    kvm: KvmFacts | None = None
    container: Probe | None = None
    """The KVM probe in the container that docker.engine ran, if it ran one there."""
    boot_id: str = ""
    booted: NestedProof | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures and findings for the report, by rung."""

    def probe_deadline(self) -> Deadline:
        return Deadline.after(self.probe_seconds)

"""Sites for the rungs to look at: an emulator that answers as told, and an L1 of the fakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline
from lab.emulators.protocol import NestedProof, Speed
from lab.engines.protocol import MachineSpec, State
from lab.host.cpu import parse_cpuinfo
from lab.host.facts import HostFacts
from lab.ladder.site import Site
from tests.unit import fakes

NONCE, L1_BOOT, L2_BOOT = "nonce-of-this-launch", "boot-of-l1", "boot-of-l2"
GOOD = NestedProof(
    nonce=NONCE,
    hypervisor="KVMKVMKVM",
    clocksource="kvm-clock",
    boot_id=L2_BOOT,
    boot_completed=True,
    kernel="6.12",
    seconds=6.0,
)


@dataclass
class FakeTools:
    nonce: str = NONCE
    adb_address: str = "127.0.0.1:15555"
    guest: Any = None
    engine: Any = None
    machine: Any = None
    failed_launches: list[str] = field(default_factory=list)
    known_boot_id: str = ""

    def log_in(self, _deadline: Deadline) -> Any:
        return self.guest


@dataclass
class FakeEmulator:
    inside: NestedProof | Exception = GOOD
    outside: NestedProof = GOOD
    name: str = "canary"
    android: bool = False
    own_clock: bool = True

    def boot_seconds(self, _speed: Speed) -> float:
        return 0

    def booted(self, _guest: Any, _deadline: Deadline) -> NestedProof:
        if isinstance(self.inside, Exception):
            raise self.inside
        return self.inside

    def prove(self, _address: str, _folder: Path, _deadline: Deadline) -> NestedProof:
        return self.outside


def host_of(cpuinfo: str = "flags : fpu\nmodel name : Some CPU\n") -> HostFacts:
    return HostFacts("Debian", "12", "6.1", "x86_64", parse_cpuinfo(cpuinfo), 2, 2**34, 2**33, "boot")


def site_of(emulator: FakeEmulator, **tools: Any) -> Site:
    site = Site(host_of(), FakeTools(**tools), emulator, Path("/nowhere"), 1.0, 1.0)  # type: ignore[arg-type]
    site.boot_id = L1_BOOT
    return site


def site_of_l1(world: fakes.World, tmp_path: Path) -> Site:
    """A site whose L1 is up, on the fakes."""
    spec = MachineSpec("uuid", "default", tmp_path, tmp_path / "d", tmp_path / "s", 2, 512, 12)
    world.state, world.l1_boots = State.RUNNING, 1
    return site_of(FakeEmulator(), guest=fakes.FakeGuest(world), machine=fakes.FakeMachine(world, spec))

"""What emulators are made with: which lab they are for, and the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.config import Settings
from lab.core.journal import Journal
from lab.model.domain import MAIN

PORTS_APART = 100
"""Between an emulator's ports in L1 and those of the next one."""


@dataclass(frozen=True)
class Place:
    """One emulator of one lab."""

    lab_uuid: str
    cache: Path
    """The image cache."""
    secrets: Path
    """The lab's folder of keys: passwords made for this lab are kept there, mode 0600."""
    state: Path
    """Where what is learned about images is kept, for all labs."""
    journal: Journal
    settings: Settings = field(default_factory=Settings)
    instance: str = MAIN
    index: int = 0
    """0 for MAIN; each further emulator of the VM has a number of its own, and ports by it."""
    debian_mirror: Callable[[], str] = lambda: ""
    """Gives a Debian archive's address, asked for where none is known. Raises BlockedError without one."""
    vm_cpus: int = 0
    vm_memory_mib: int = 0
    vm_disk_gib: int = 0
    """The VM's processors, memory and disk; 0 where they are not known."""
    suffix: str = ""
    """Of the containers' names, in a machine that other labs may be in, too."""
    ports_from: int = 0
    """Added to the ports of L1: those of somebody's machine may be taken."""

    arm64: bool = False
    """The machine's processor is a 64-bit Arm, and no x86."""

    def container(self, kind: str) -> str:
        """The container's name in L1."""
        return "-".join(
            ["lab", kind, *filter(None, (self.suffix, "" if self.instance == MAIN else self.instance))]
        )

    def ports(self, services: Mapping[str, int]) -> dict[str, int]:
        """The ports of L1 on which the container's `services` (name to its own port) are published."""
        apart = self.ports_from + PORTS_APART * self.index
        return {name: port + apart for name, port in services.items()}

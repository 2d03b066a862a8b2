"""What emulators are made with: which lab they are for, and what the settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.core.journal import Journal
from lab.model.domain import MAIN

PORTS_APART = 100
"""Between an emulator's ports in L1 and those of the next one."""


@dataclass(frozen=True)
class AndroidOptions:
    """The settings of docker-android (section `emulator` of lab.toml)."""

    image: str = "budtmo/docker-android:emulator_14.0"
    digest: str = ""
    """sha256:…; empty: learned at the first pull and kept."""
    registry: str = ""
    """A mirror, host[:port]; empty: the one the image's name stands for."""
    archive: Path | None = None
    """A `docker save` archive to take the image from instead of a registry."""
    device: str = "Samsung Galaxy S10"
    memory_mib: int = 3072
    cpus: float = 2.0
    appium: bool = False
    env: tuple[str, ...] = ()
    """Further KEY=VALUE words for the container."""
    download_seconds: float = 7200.0


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
    android: AndroidOptions = AndroidOptions()
    instance: str = MAIN
    index: int = 0
    """0 for MAIN; each further emulator of the VM has a number of its own, and ports by it."""
    debian_mirror: Callable[[], str] = lambda: ""
    """Gives a Debian archive's address, asked for where none is known. Raises BlockedError without one."""
    vm_memory_mib: int = 0
    vm_disk_gib: int = 0
    """The VM's memory and disk; 0 where they are not known."""

    def container(self, kind: str) -> str:
        """The container's name in L1."""
        return f"lab-{kind}" if self.instance == MAIN else f"lab-{kind}-{self.instance}"

    def ports(self, services: Mapping[str, int]) -> dict[str, int]:
        """The ports of L1 on which the container's `services` (name to its own port) are published."""
        return {name: port + PORTS_APART * self.index for name, port in services.items()}

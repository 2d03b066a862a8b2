"""What each kind of emulator says of itself before there is a VM for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from lab.config import Settings
from lab.emulators.options import Place
from lab.emulators.protocol import Emulator


class EmulatorKind(ABC):
    """A kind of emulator, as the settings have it. What is not abstract is for kinds that need nothing more.

    An entry point of the group `lab.emulators` names the class (docs/extending.md).
    """

    name: ClassVar[str]
    """The entry point's name; documents and the record call the emulator by it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def at(self, place: Place) -> Emulator:
        """An emulator of this kind at `place`. Nothing is started or fetched."""

    def check(self) -> None:  # noqa: B027
        """Raise UsageError for settings that it cannot be started with. Asks nobody."""

    def vm_size(self) -> tuple[int, int]:
        """(MiB of memory, GiB of disk) that a new lab's VM should have at least; 0 where any will do."""
        return 0, 0

    def lacking(self, memory_mib: int, disk_gib: int) -> list[str]:  # noqa: ARG002
        """What a VM of that size lacks for it, a sentence each."""
        return []

    def hint(self) -> str:
        """What to set for a VM that lacks something."""
        return ""

    def why_no_image(self, seconds: float) -> str:  # noqa: ARG002
        """Why its image can be had neither here nor from its server, asked that long; empty when it can."""
        return ""

    def cached(self) -> str:
        """The cached image (lab.images.cache) it would be started from; empty when there is none."""
        return ""

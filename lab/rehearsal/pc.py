"""What every emulated PC offers, whichever program emulates it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import UsageError

_LONGEST_LINE = 2000
"""Characters: the kernel reads 2047 of its command line."""

Hear = Callable[[str], None]
"""Called with each line that comes over the first serial port. It is the guest's, hence untrusted."""


SYSTEM, DISK = "lab-system", "lab-disk"
"""Models of hard disks, as the PC's Linux has them in /sys/block/*/device/model: which of them it calls sda
is not decided (it looks at all of them at once)."""


@dataclass(frozen=True)
class PcSpec:
    """A PC with one processor, the Linux that it boots, and its disks."""

    uuid: str
    """lab's own mark: the PC's process and files are known by it, never by name."""
    folder: Path
    """The PC's own: its settings, its logs, its boot medium. Made where it is missing."""
    cpu: str
    """A processor by its short name, such as haswell (lab.rehearsal.models)."""
    memory_mib: int
    kernel: Path
    initramfs: Path
    command_line: str
    """Of the kernel (`kernel_line`). The first serial port is ttyS0."""
    system: Path | None = None
    """A raw image, the hard disk of the model SYSTEM. It is read alone, so that many PCs can share it: what
    this one writes there is forgotten at its end. A disk's size: lab.rehearsal.bochs.disk_bytes."""
    disk: Path | None = None
    """A raw image, the hard disk of the model DISK: the one thing the PC changes."""


def kernel_line(text: str) -> str:
    """A kernel's command line. Raises UsageError for what is none."""
    if not (text.isascii() and text.isprintable() and len(text) <= _LONGEST_LINE):
        raise UsageError(f"a kernel's command line is one line of ASCII, up to {_LONGEST_LINE} characters")
    return text


@dataclass(frozen=True)
class PcFacts:
    """What emulates the PC, and as which processor, in the emulator's own word."""

    emulator: str
    version: str
    processor: str


class EmulatedPc(Protocol):
    """One PC. It ends with the thread that started it, however that ends."""

    @property
    def spec(self) -> PcSpec: ...

    @property
    def serial(self) -> Path:
        """All that came over the first serial port. Its end can be missing: keep what matters on the disk."""

    @property
    def logs(self) -> list[Path]:
        """What tells how it went; the serial port comes last."""

    def facts(self) -> PcFacts:
        """Raises BlockedError: the emulator is not installed, or has no such processor."""

    def start(self) -> None:
        """Switch it on. Raises BlockedError as `facts`, UsageError: it runs already, or its spec is wrong."""

    def running(self) -> bool: ...

    def wait(self, deadline: Deadline, hear: Hear | None = None) -> None:
        """Wait until it switches itself off, as its Linux does at the end of its work.

        Raises InconclusiveError when it ends in another way or writes without end, DeadlineError,
        InterruptedByUser; each with its last words. It may run on then: `end` it.
        """

    def end(self) -> None:
        """Pull the plug, if it runs. Also that of a PC which another process started. Raises LabError."""


P = TypeVar("P", bound=EmulatedPc)


@contextlib.contextmanager
def powered(pc: P) -> Iterator[P]:
    """The PC, switched on for the block and off at its end, whichever way that comes."""
    pc.start()  # what it refuses to start is not ours to end
    try:
        yield pc
    finally:
        with cleaning_up():
            pc.end()

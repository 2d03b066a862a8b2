"""What the engines are made with. The registry hands each its own part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Acceleration = Literal["auto", "kvm", "tcg"]
VirtualBoxTransport = Literal["auto", "vboxapi", "vboxmanage"]
ExecutionEngine = Literal["default", "hwvirt", "native", "interpreter"]
QEMU = "qemu-system-x86_64"


@dataclass(frozen=True)
class QemuOptions:
    acceleration: Acceleration = "auto"
    binary: str = QEMU
    kernel: Path | None = None
    """What the probe of the host's KVM may boot where the host's own kernel cannot be read."""


@dataclass(frozen=True)
class VirtualBoxOptions:
    home: str = ""
    """VirtualBox's program folder; empty: where it is found installed."""
    python: str = ""
    """The Python that can load VirtualBox's bindings; empty: lab's own."""
    execution_engine: ExecutionEngine = "default"
    extra_data: Sequence[str] = ()
    """KEY=VALUE pairs set on the machine before it is started."""
    transport: VirtualBoxTransport = "auto"
    """How VirtualBox is spoken to: over its bindings, VBoxManage, or whichever answers first."""


@dataclass(frozen=True)
class Options:
    cache_dir: Path
    """Where probes keep their answers, and engines what they derive from images."""
    qemu: QemuOptions = field(default_factory=QemuOptions)
    virtualbox: VirtualBoxOptions = field(default_factory=VirtualBoxOptions)
    folder: Path | None = None
    """The engine's own folder of the lab that is meant, where there is one."""

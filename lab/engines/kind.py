"""What an engine says of itself, beside driving VMs: the object that its entry point names.

It is read without the hypervisor, on any host, and must be cheap to import (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lab.engines.options import Options
from lab.engines.protocol import Engine

if TYPE_CHECKING:  # the worker of VirtualBox's bindings loads this package, and has none of lab's libraries
    from lab.host.packages import Purpose


@dataclass(frozen=True)
class Trace:
    """One sign of a machine: its engine, its UUID if the sign has it, and the file or process it is."""

    engine: str
    uuid: str
    sign: str


@dataclass(frozen=True)
class EngineKind:
    """One kind of engine. Calling it makes the engine, installed or not."""

    name: str
    """As settings, records and documents have it."""
    make: Callable[[Options], Engine]
    purposes: frozenset[Purpose] = frozenset({"ssh", "adb"})
    """What its labs need of the packages that lab installs. A hypervisor that is not among these is the
    user's to install."""
    preference: int = 0
    """Its place in the order in which `auto` tries engines, 1 first; 0: `auto` never takes it. The last is
    what `auto` ends with where none can start a VM yet, so lab must be able to install that one."""
    disk_format: Literal["qcow2", "vmdk"] = "qcow2"
    """The format of published images that it reads."""
    boots_kernel: bool = False
    """Whether `availability` may boot a kernel of an image: then it is not asked before there is one."""
    journal: str = ""
    """The kind of journal entry whose key is a machine's UUID; empty when it journals none."""
    by_folder: bool = False
    """Whether a machine is known by the files in its folder alone, without its UUID."""
    traces: Callable[[Path], Iterable[Trace]] = lambda _folder: ()
    """Every sign of a machine of its own in an engine's folder of a lab, for a lab whose record and journal
    are lost. Raises LabError for files that are damaged and are all there is to go by, OSError."""
    prune: Callable[[Path, Container[str]], list[tuple[Path, int]]] = lambda _cache, _keep: []
    """Remove what it derived in the cache folder from images that are not kept: (path, bytes) of each."""

    def __call__(self, options: Options) -> Engine:
        """The engine, made with lab's settings."""
        return self.make(options)

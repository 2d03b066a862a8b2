"""The engines by name: lab's own, those by Vagrant, and those that installed packages bring."""

from __future__ import annotations

import contextlib
from collections.abc import Container
from pathlib import Path

from lab.core import plugins, system
from lab.core.errors import BlockedError, LabError
from lab.engines import attached, vagrant
from lab.engines.kind import EngineKind, Trace
from lab.engines.options import Options
from lab.engines.protocol import Engine


def names() -> tuple[str, ...]:
    """The engines that can be asked for; those by Vagrant, which are attached, are not among them."""
    return plugins.names("lab.engines")


def kind(name: str) -> EngineKind:
    """What the engine of that name says of itself.

    Raises UsageError for an unknown name; BlockedError where what another package brings cannot be used.
    """
    if name in vagrant.INNER:
        return vagrant.kind(name, kind(vagrant.INNER[name]))
    if name == attached.NAME:
        return attached.KIND
    brought = plugins.load("lab.engines", name)
    if not isinstance(brought, EngineKind) or brought.name != name:
        raise BlockedError(
            f"the engine `{name}` is not described by an EngineKind of that name, but by {brought!r}",
            hint="mend or uninstall the package that brings it (docs/extending.md)",
        )
    return brought


def kinds() -> list[EngineKind]:
    """Every engine, attached ones and those by Vagrant too. Of another package, only what can be loaded."""
    loaded = []
    for name in (*names(), *vagrant.INNER, attached.NAME):
        with contextlib.suppress(LabError):
            loaded.append(kind(name))
    return loaded


def automatic() -> list[str]:
    """The engines that `auto` tries, the one it prefers first."""
    return [each.name for each in sorted(kinds(), key=lambda each: each.preference) if each.preference]


def engine(name: str, options: Options) -> Engine:
    """The engine of that name, installed or not. Raises as `kind` does."""
    return kind(name).make(options)


def prune(cache_dir: Path, images: Container[str]) -> list[tuple[Path, int]]:
    """Remove what engines derived from images that are not among `images`: (path, bytes) of each."""
    return [item for each in kinds() for item in each.prune(cache_dir, images)]


def traces(folder: Path) -> list[Trace]:
    """Every sign of a machine in an engine's folder of a lab; empty when the folder is or is not there.

    Raises LabError for files that may not be read, or that are damaged and are all there is to go by.
    """
    with system.explained(folder):
        return [trace for each in kinds() for trace in each.traces(folder)]


def is_empty(folder: Path) -> bool:
    """Whether nothing is in an engine's folder of a lab, or there is none. Raises LabError."""
    with system.explained(folder):
        return not folder.is_dir() or not any(folder.iterdir())

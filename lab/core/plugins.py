"""Engines, emulators and reporters by name: lab's own, and those that installed packages bring.

A package brings one by an entry point in its pyproject.toml:

    [project.entry-points."lab.engines"]
    mine = "my_package.engine:KIND"

What the reference names is called once for each use, and its answer keeps the group's protocol:

- `lab.engines`: a lab.engines.kind.EngineKind; called with lab.engines.options.Options it gives a
  lab.engines.protocol.Engine.
- `lab.emulators`: called with lab.config.Settings; a lab.emulators.kind.EmulatorKind.
- `lab.reporters`: called without arguments; a lab.reports.protocol.Reporter.

The registries of these groups (lab.engines, lab.emulators, lab.reports) call `names` and `load`. Lab's own
are in the table here, so they are there without lab's metadata, and no package can replace them. Installed
packages are searched for entry points only when `names` or `load` is called; only `load` imports anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from lab.core.errors import BlockedError, UsageError
from lab.core.similar import choices

Group = Literal["lab.engines", "lab.emulators", "lab.reporters"]

OWN: dict[Group, dict[str, str]] = {
    "lab.engines": {
        "virtualbox": "lab.engines.virtualbox.kind:KIND",
        "qemu": "lab.engines.qemu.kind:KIND",
    },
    "lab.emulators": {
        "canary": "lab.emulators.canary.kind:CanaryKind",
        "docker-android": "lab.emulators.docker_android.kind:DockerAndroidKind",
    },
    "lab.reporters": {
        "html": "lab.reports.html:Html",
        "json": "lab.reports.document:Document",
        "junit": "lab.reports.junit:JUnit",
        "markdown": "lab.reports.markdown:Markdown",
    },
}
"""Lab's own, as pyproject.toml has them: group, name, reference. In the order lab prefers or writes them."""

_TAKEN = frozenset({"attached", "auto", "none", "vagrant-libvirt", "vagrant-virtualbox"})
"""Names with a meaning of their own in lab: a package cannot have them."""


def names(group: Group) -> tuple[str, ...]:
    """Every name of the group: lab's own first, then those of installed packages by the alphabet."""
    return (*OWN[group], *_foreign(group, tuple(sys.path)))


def load(group: Group, name: str) -> Callable[..., Any]:
    """What the group has under that name, imported: a class or function to be called (see above).

    Raises UsageError for an unknown name, with the nearest known ones, and for a name that two packages
    bring; BlockedError, naming package and module, where what a package brings cannot be imported.
    """
    if reference := OWN[group].get(name):
        return _callable(EntryPoint(name, reference, group))
    points = _foreign(group, tuple(sys.path)).get(name)
    kind = group.removeprefix("lab.").removesuffix("s")
    if not points:
        raise UsageError(f"there is no {kind} `{name}`", hint=f"nearest: {choices(name, names(group))}")
    packages = ", ".join(_package(point) for point in points)
    if len(points) > 1:
        raise UsageError(
            f"several packages bring a {kind} `{name}`: {packages}", hint="uninstall all but one"
        )
    try:
        return _callable(points[0])
    except Exception as error:
        raise BlockedError(
            f"the {kind} `{name}` of the package {packages} cannot be loaded from {points[0].value}: "
            f"{type(error).__name__}: {error}",
            hint=f"mend or uninstall {packages}",
        ) from error


@lru_cache(maxsize=8)
def _foreign(group: Group, _path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of other packages, by name. They are searched once for each import path."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        if point.name not in OWN[group] and point.name not in _TAKEN:
            points.setdefault(point.name, []).append(point)
    return {name: tuple(sorted(points[name], key=_package)) for name in sorted(points)}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "(unknown)"


def _callable(point: EntryPoint) -> Callable[..., Any]:
    brought: object = point.load()
    if not callable(brought):
        raise TypeError("it cannot be called")
    return brought

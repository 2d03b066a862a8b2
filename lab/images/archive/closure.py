"""Which packages are needed: those asked for and all they depend on, as Debian's policy 7.2 has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from lab.core.errors import BlockedError
from lab.images.archive.index import Alternatives, Package, PackageIndex, satisfies


def needed(index: PackageIndex, names: Sequence[str]) -> list[Package]:
    """The packages called `names` with all their Depends and Pre-Depends, by name; the same every time.

    Of alternatives, one that is needed anyhow is taken, else the first that the archive has. Conflicts do not
    matter: nothing is installed. Raises BlockedError when the archive lacks one.
    """
    chosen: dict[str, Package] = {}
    waiting = deque[tuple[str, Alternatives]](("the recipe", [{"name": name}]) for name in names)
    while waiting:
        wanted_by, alternatives = waiting.popleft()
        if any(_fits(chosen.get(str(item["name"])), item) for item in alternatives):
            continue
        package = _first(index, alternatives)
        if package is None:
            wanted = " | ".join(str(item["name"]) for item in alternatives)
            raise BlockedError(
                f"{wanted_by} needs {wanted}, which the Debian archive does not offer",
                hint="the mirror may be half updated: try again later, or name another one",
            )
        chosen[package.name] = package
        waiting.extend((package.name, dependency) for dependency in package.dependencies)
    return [chosen[name] for name in sorted(chosen)]


def _first(index: PackageIndex, alternatives: Alternatives) -> Package | None:
    for item in alternatives:
        name = str(item["name"])
        package = index.package(name)
        if _fits(package, item):
            return package
        # What is provided has seldom a version: a dependency on one is for real packages.
        if item.get("version") is None and (providers := index.providers(name)):
            return index.package(providers[0])
    return None


def _fits(package: Package | None, item: Mapping[str, Any]) -> bool:
    return package is not None and satisfies(package, item.get("version"))

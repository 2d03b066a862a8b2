"""The packages an archive offers: its Packages file, checked against the release, read as far as needed."""

from __future__ import annotations

import hashlib
import lzma
import operator
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from debian.deb822 import Packages, PkgRelation
from debian.debian_support import Version

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.core.web import HttpSession, Patience, shown
from lab.images.archive.release import SuiteRelease
from lab.images.transport import fetch_bytes

_LONGEST = 512 << 20
"""Bytes of the unpacked list; Debian 13's has 57 million."""
_RELATIONS: Mapping[str, Callable[[Version, Version], bool]] = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
    "<": operator.le,
    ">": operator.ge,  # of old, and deprecated
}
_SHA256 = re.compile(r"[0-9a-f]{64}")

Alternatives = Sequence[Mapping[str, Any]]
"""A dependency's alternatives, first choice first, as python-debian's PkgRelation reads them."""


@dataclass(frozen=True)
class Package:
    """One package: where its .deb is below the archive's address, its SHA-256 in hex, its bytes."""

    name: str
    version: str
    path: str
    sha256: str
    size: int
    dependencies: Sequence[Alternatives] = field(default=(), compare=False, repr=False)


class PackageIndex:
    """All packages of a Packages file. Only those that are asked for are parsed: there are 60,000."""

    def __init__(self, text: str) -> None:
        self._stanzas: dict[str, list[str]] = defaultdict(list)
        self._providers: dict[str, set[str]] = defaultdict(set)
        self._parsed: dict[str, Package] = {}
        for stanza in re.split(r"\n\s*\n", text):
            fields = stanza.lstrip()
            if not fields.startswith("Package: "):
                continue
            name = fields.partition("\n")[0].removeprefix("Package: ").strip()
            self._stanzas[name].append(fields)
            provided = re.search(r"^Provides: (.*)$", fields, re.MULTILINE)
            for item in provided[1].split(",") if provided else []:
                self._providers[item.split("(")[0].strip()].add(name)

    def package(self, name: str) -> Package | None:
        """The newest version of a package, or None. Raises BlockedError when its entry is not whole."""
        if name in self._stanzas and name not in self._parsed:
            versions = [_parse(stanza) for stanza in self._stanzas[name]]
            self._parsed[name] = max(versions, key=lambda package: Version(package.version))
        return self._parsed.get(name)

    def providers(self, name: str) -> list[str]:
        """The packages that say they provide `name`, by name."""
        return sorted(self._providers.get(name, ()))


def satisfies(package: Package, relation: tuple[str, str] | None) -> bool:
    """Whether the package's version fits `relation`, a pair such as (">=", "2.41"); None fits all."""
    if relation is None:
        return True
    relator, wanted = relation
    return _RELATIONS[relator](Version(package.version), Version(wanted))


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


def read_index(
    session: HttpSession, release: SuiteRelease, architecture: str, deadline: Deadline, patience: Patience
) -> PackageIndex:
    """The index of an architecture. BlockedError unless it is as the release lists it; DeadlineError."""
    file = f"main/binary-{architecture}/Packages.xz"
    listed = release.files.get(file)
    if listed is None:
        raise BlockedError(f"{shown(release.folder)} lists no {file}: it has no packages for {architecture}")
    url = release.folder + file
    # By its hash first: the name's file may already be that of the next update.
    by_hash = f"{release.folder}{file.rpartition('/')[0]}/by-hash/SHA256/{listed.sha256}"
    try:
        packed = fetch_bytes(session, by_hash, limit=listed.size, deadline=deadline, patience=patience)
    except BlockedError:
        packed = fetch_bytes(session, url, limit=listed.size, deadline=deadline, patience=patience)
    if hashlib.sha256(packed).hexdigest() != listed.sha256:
        raise BlockedError(
            f"{shown(url)} is not the file that the release lists",
            hint="the mirror may be half updated: try again later, or name another one",
        )
    return PackageIndex(_unpacked(packed, shown(url)).decode("utf-8", "replace"))


def _unpacked(packed: bytes, name: str) -> bytes:
    decompressor = lzma.LZMADecompressor()
    try:
        data = decompressor.decompress(packed, _LONGEST)
    except lzma.LZMAError as error:
        raise BlockedError(f"{name} cannot be unpacked: {error}") from error
    if not decompressor.eof:
        raise BlockedError(f"{name} is cut off, or longer than {_LONGEST >> 20} MiB unpacked")
    return data


def _parse(stanza: str) -> Package:
    fields = Packages(stanza)
    try:
        relations = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
        package = Package(
            fields["Package"],
            fields["Version"],
            fields["Filename"],
            fields["SHA256"].lower(),
            int(fields["Size"]),
            PkgRelation.parse_relations(relations) if relations else (),
        )
    except (KeyError, ValueError) as error:
        raise BlockedError(f"the archive's entry of {fields.get('Package')} is not whole: {error}") from error
    if not _SHA256.fullmatch(package.sha256) or ".." in package.path.split("/"):
        raise BlockedError(f"the archive's entry of {package.name} names no file that can be checked")
    return package

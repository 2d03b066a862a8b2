"""Every pin of the locks can be installed on every system lab runs on, told without asking an index.

The tags of a wheel stand in its name (PEP 425, 600); a lock's `.wheels` has the names of its hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import (
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
MACOS = (12, 13, 14, 15, 26)
GLIBC = 28
"""The oldest glibc that is served, 2.28: Debian 10 and RHEL 8."""


@dataclass(frozen=True)
class Target:
    """A system and a Python, as PEP 508's markers and PEP 425's tags know them."""

    system: str
    machine: str
    release: int
    python: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.system}{self.release}-{self.machine}-py{self.python[0]}.{self.python[1]}"

    @property
    def markers(self) -> dict[str, str]:
        version = ".".join(map(str, self.python))
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": {"darwin": "Darwin", "linux": "Linux"}[self.system],
            "python_full_version": f"{version}.2",
            "python_version": version,
            "sys_platform": self.system,
        }

    @property
    def tags(self) -> set[Tag]:
        if self.system == "darwin":
            platforms = list(mac_platforms((self.release, 0), self.machine))
        else:
            aliases = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
            platforms = [f"linux_{self.machine}"]
            for minor in range(self.release, 4, -1):
                platforms.append(f"manylinux_2_{minor}_{self.machine}")
                platforms += [f"{aliases[minor]}_{self.machine}"] if minor in aliases else []
        interpreter = f"cp{self.python[0]}{self.python[1]}"
        return {
            *cpython_tags(self.python, platforms=platforms),
            *compatible_tags(self.python, interpreter, platforms),
        }


TARGETS = [
    *(Target("darwin", machine, release, python) for machine in ("x86_64", "arm64") for release in MACOS
      for python in PYTHONS),
    *(Target("linux", machine, GLIBC, python) for machine in ("x86_64", "aarch64") for python in PYTHONS),
]  # fmt: skip
FROM_SOURCE = {("darwin", "arm64"): {"adbutils"}, ("linux", "aarch64"): {"adbutils"}}
"""What is built on the spot, being pure Python: its wheels hold an adb, which those systems get elsewhere."""


@dataclass(frozen=True)
class Pin:
    """One requirement of the lock, with the SHA-256 sums that may be installed for it."""

    requirement: Requirement
    hashes: frozenset[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> Version:
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "=="
        return Version(specifier.version)


def read_pins(lock: str) -> Iterator[Pin]:
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock):
        words = " ".join(line for line in block.splitlines() if not line.lstrip().startswith("#"))
        requirement, *options = words.replace("\\", "").split(" --hash=sha256:")
        yield Pin(Requirement(requirement.strip()), frozenset(option.strip() for option in options))


LOCKS = {
    "requirements": {"cryptography", "fabric", "paramiko", "pydantic"},
    "fleet": {"buildbot", "buildbot-worker", "buildbot-www", "twisted"},
}
"""Each lock, with some of what must be in it."""
PINS = {name: list(read_pins((ROOT / f"{name}.lock").read_text())) for name in LOCKS}
FILES = [line.split("  ") for name in LOCKS for line in (ROOT / f"{name}.wheels").read_text().splitlines()]


def sources(pin: Pin, tags: set[Tag] | None) -> Sequence[str]:
    """The files that the pin's hashes allow: wheels with one of `tags`; source archives when it is None."""
    names = sorted({name for digest, name in FILES if digest in pin.hashes})
    if tags is None:
        sdists = [(parse_sdist_filename(name), name) for name in names if not name.endswith(".whl")]
        return [name for (project, version), name in sdists if (project, version) == (pin.name, pin.version)]
    wheels = [(parse_wheel_filename(name), name) for name in names if name.endswith(".whl")]
    return [
        name
        for (project, version, _, wheel_tags), name in wheels
        if (project, version) == (pin.name, pin.version) and wheel_tags & tags
    ]


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_pin_can_be_installed_there(target: Target, lock: str) -> None:
    tags = target.tags
    wanted = [
        pin
        for pin in PINS[lock]
        if pin.requirement.marker is None or pin.requirement.marker.evaluate(target.markers)
    ]
    names = [pin.name for pin in wanted]
    assert len(names) == len(set(names)), "two pins of one project hold for the same system"
    assert LOCKS[lock] <= set(names)
    without_wheel = {pin.name for pin in wanted if not sources(pin, tags)}
    assert without_wheel == FROM_SOURCE.get((target.system, target.machine), set()) & set(names)
    assert [pin.name for pin in wanted if pin.name in without_wheel and not sources(pin, None)] == []


def test_the_lock_pins_each_project_by_version_and_hash() -> None:
    assert len(PINS["requirements"]) > 80
    assert "buildbot" not in {pin.name for pin in PINS["requirements"]}, "it is GPL: never in lab's own"
    for pins in PINS.values():
        assert [pin.name for pin in pins if not pin.hashes] == []
        assert all(pin.version for pin in pins)


def test_a_wheel_for_another_system_or_with_another_hash_does_not_count() -> None:
    intel = Target("darwin", "x86_64", 26, (3, 13))
    pin = next(pin for pin in PINS["requirements"] if pin.name == "cryptography" and pin.version.major >= 49)
    assert sources(pin, intel.tags) == [], "what kept Intel Macs from installing lab"
    assert sources(pin, Target("darwin", "arm64", 26, (3, 13)).tags)
    assert (
        sources(Pin(pin.requirement, frozenset({"0" * 64})), Target("linux", "x86_64", GLIBC, (3, 13)).tags)
        == []
    )

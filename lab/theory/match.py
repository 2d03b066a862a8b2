"""Conditions on a host and an engine: whether they hold, and whether one implies another."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.core.versions import BOUND, in_range, numbers
from lab.model.domain import engine_title
from lab.theory.situation import (
    FLAGS,
    SYSTEM_NAMES,
    VENDOR_NAMES,
    Engine,
    Situation,
    System,
    Vendor,
)

SETS = ("system", "cpu")
RANGES = ("os_version", "engine_version", "generation")


class Range(BaseModel):
    """since <= version < below, compared number by number; an empty bound is open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: str = Field(default="", alias="from", pattern=BOUND)
    below: str = Field(default="", pattern=BOUND)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.since and self.below and numbers(self.since) >= numbers(self.below):
            raise ValueError(f"nothing is from {self.since} and below {self.below}")
        return self

    @property
    def any(self) -> bool:
        return not self.since and not self.below

    def holds(self, version: str) -> bool | None:
        """None when it asks for something and the version is not known."""
        if not self.any and not numbers(version):
            return None
        return in_range(version, self.since, self.below)

    def within(self, other: Range) -> bool:
        """Whether every version in this range is in the other."""
        low = not other.since or (bool(self.since) and numbers(other.since) <= numbers(self.since))
        high = not other.below or (bool(self.below) and numbers(self.below) <= numbers(other.below))
        return low and high

    def describe(self) -> str:
        if self.since and self.below:
            return f"{self.since} to before {self.below}"
        return f"{self.since} and newer" if self.since else f"before {self.below}" if self.below else ""


class Where(BaseModel):
    """Conditions on a host. One that is left out asks for nothing; of a list, one value suffices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: tuple[System, ...] = ()
    cpu: tuple[Vendor, ...] = ()
    os_version: Range = Range()
    generation: Range = Range()
    virtual: bool | None = None
    extensions: bool | None = None
    emulated: bool | None = None
    la57: bool | None = None
    hyperv: bool | None = None
    kvm: bool | None = None
    nested: bool | None = None

    def holds(self, situation: Situation) -> bool | None:
        """False when a condition is known not to hold; else None when one is not known."""
        conditions = self._each(situation)
        return False if False in conditions else None if None in conditions else True

    def _each(self, situation: Situation) -> list[bool | None]:
        generation = "" if situation.generation is None else str(situation.generation)
        return [
            not self.system or situation.system in self.system,
            None if self.cpu and situation.cpu is None else not self.cpu or situation.cpu in self.cpu,
            self.os_version.holds(situation.os_version),
            self.generation.holds(generation),
            *(self._flag(name, getattr(situation, name)) for name in FLAGS),
        ]

    def _flag(self, name: str, value: bool | None) -> bool | None:
        wanted: bool | None = getattr(self, name)
        return True if wanted is None else None if value is None else value == wanted

    def describe(self) -> str:
        """The conditions in words."""
        system = " or ".join(SYSTEM_NAMES[name] for name in self.system)
        chips = " or ".join(VENDOR_NAMES[name] for name in self.cpu)
        asked = [
            flag.asked[0 if wanted else 1]
            for name, flag in FLAGS.items()
            if (wanted := getattr(self, name)) is not None
        ]
        words = [
            " ".join(filter(None, [system, self.os_version.describe()])),
            chips + self._chip(),
            *asked,
        ]
        return ", ".join(filter(None, words)) or "any host"

    def _chip(self) -> str:
        generation = self.generation.describe()
        return f" (generation {generation})" if generation else ""


class Match(Where):
    """Conditions on a host and an engine."""

    engine: Engine
    engine_version: Range = Range()

    def _each(self, situation: Situation) -> list[bool | None]:
        return [
            situation.engine == self.engine,
            self.engine_version.holds(situation.engine_version),
            *super()._each(situation),
        ]

    @property
    def theory(self) -> bool:
        """Whether it is about the theory's own ground and nothing else."""
        return self.engine == "virtualbox" and self.system == ("macos",)

    def implies(self, other: Match) -> bool:
        """Whether the other holds wherever this does."""
        return (
            self.engine == other.engine
            and all(_subset(getattr(self, name), getattr(other, name)) for name in SETS)
            and all(getattr(self, name).within(getattr(other, name)) for name in RANGES)
            and all(getattr(other, name) in (None, getattr(self, name)) for name in FLAGS)
        )

    def describe(self) -> str:
        """The engine with its versions, and the host."""
        engine = " ".join(filter(None, [engine_title(self.engine), self.engine_version.describe()]))
        return f"{engine}: {super().describe()}"


def _subset(values: tuple[str, ...], allowed: tuple[str, ...]) -> bool:
    """Whether every value is allowed; an empty tuple stands for any value."""
    return not allowed or (bool(values) and set(values) <= set(allowed))

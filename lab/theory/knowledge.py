"""What is known of hosts and engines, from known.toml, and what it predicts.

The rule of precedence: a fact gives way to every other one that holds and whose conditions imply its
own. So the more specific wins, whatever the order of the file. Two facts that can hold together, say
different things, and imply neither each other nor a third that settles it, are a conflict; the table
has none.
"""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from lab.theory.match import Match, Where
from lab.theory.situation import Engine, Situation

_TABLE = Path(__file__).with_name("known.toml")
_HOLDS_NOT = ("refuted", "blocked")


class Outlook(StrEnum):
    """What is expected of a claim: a verdict, or that nobody knows."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not applicable"


class Grade(StrEnum):
    """What a prediction rests on, the strongest first (docs/theory.md)."""

    MEASURED = "measured"
    SOURCE_CODE = "source code"
    DOCUMENTED = "documented"
    VENDOR = "vendor statement"
    REPORTS = "issue reports"
    INFERENCE = "inference"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    grade: Grade
    date: datetime.date
    """When what it rests on was said, written or measured; the newest of its sources."""
    sources: tuple[str, ...] = Field(min_length=1)
    """`owner/repo#number`, a file, a page, or "measured" with where lab's record of it is."""


class Fact(_Entry):
    """One [[fact]]. `nesting` and `android` are what it predicts of those claims.

    `rung` decides: where the lowest of them fails, or would be settled. Left out, `android` follows
    `nesting`, but is unknown where nesting is confirmed: that Android boots is another thing.
    """

    match: Match
    nesting: Outlook
    android: Outlook = Outlook.UNKNOWN
    rung: str = ""
    why: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, values: object) -> object:
        if isinstance(values, dict) and "android" not in values and values.get("nesting") in _HOLDS_NOT:
            return values | {"android": values["nesting"]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Fact:
        if self.nesting is Outlook.NOT_APPLICABLE or self.android is Outlook.NOT_APPLICABLE:
            raise ValueError(f"{self.id}: nesting and android apply everywhere")
        if self.android is Outlook.CONFIRMED and self.nesting is not Outlook.CONFIRMED:
            raise ValueError(f"{self.id}: Android needs nesting")
        if self.rung and self.rung not in LADDER:
            raise ValueError(f"{self.id}: {self.rung!r} is not a rung")
        if not self.rung and (self.nesting in _HOLDS_NOT or self.android is Outlook.REFUTED):
            raise ValueError(f"{self.id}: which rung decides?")
        return self

    def claims(self, theory: bool) -> dict[Claim, Outlook]:
        """The prediction for each claim. `theory`: whether the place is VirtualBox on macOS."""
        return {
            Claim.NESTING: self.nesting,
            Claim.ANDROID: self.android,
            Claim.THEORY: self.android if theory else Outlook.NOT_APPLICABLE,
        }


class Way(_Entry):
    """One [[way]]: what would work on a host, whatever the engine asked about."""

    where: Where
    how: str = Field(min_length=1)
    engine: Engine | None = None
    """The one it takes. None where the host would be another then, or it is no x86 Android in a container."""


class KnowledgeTable(BaseModel):
    """known.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fact: tuple[Fact, ...]
    way: tuple[Way, ...] = ()


@dataclass(frozen=True)
class Expectation:
    """What to expect in `situation`. `fact` is what it rests on, None where nothing is known.

    `open` are facts that would decide instead, if what they ask for were known and so.
    """

    situation: Situation
    claims: dict[Claim, Outlook]
    fact: Fact | None
    open: tuple[Fact, ...] = ()


@cache
def table() -> KnowledgeTable:
    """What is known, in the order of the file. Raises pydantic's ValidationError for a wrong file."""
    return KnowledgeTable.model_validate(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


def predict(situation: Situation, facts: tuple[Fact, ...] | None = None) -> Expectation:
    """What is known of this host with this engine, by the most specific fact that holds."""
    known = table().fact if facts is None else facts
    held = {fact.id: fact.match.holds(situation) for fact in known}
    winner = most_specific([fact for fact in known if held[fact.id]])
    maybe = [
        fact
        for fact in known
        if held[fact.id] is None and (winner is None or fact.match.implies(winner.match))
    ]
    theory = is_theory(situation)
    if winner is None:
        claims = dict.fromkeys(Claim, Outlook.UNKNOWN)
        if not theory:
            claims[Claim.THEORY] = Outlook.NOT_APPLICABLE
    else:
        claims = winner.claims(theory)
    return Expectation(situation, claims, winner, tuple(maybe))


def most_specific(facts: list[Fact]) -> Fact | None:
    """The fact whose conditions imply those of the others; None without any.

    Where several are left, which a table without conflicts allows only when they say the same,
    the first.
    """
    best = [
        fact
        for fact in facts
        if not any(
            other is not fact and other.match.implies(fact.match) and not fact.match.implies(other.match)
            for other in facts
        )
    ]
    return best[0] if best else None


def ways(situation: Situation) -> list[Way]:
    """What would work on this host, in the order of the file. What is not known rules nothing out."""
    return [way for way in table().way if way.where.holds(situation) is not False]


def is_theory(situation: Situation) -> bool:
    """Whether this is the theory's own ground."""
    return (situation.system, situation.engine) == ("macos", "virtualbox")

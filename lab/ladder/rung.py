"""A rung, with all that the rest of lab knows of it, and the ladder that the rungs make up.

Nothing else in lab lists rungs: claims, verdicts, reports and commands ask the ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from lab.ladder.site import Site
from lab.model.domain import Claim, Observation

RungCheck = Callable[[Site], Observation]
"""Looks at a site. Raises LabError where it could not look: docs/ladder.md says what becomes of that."""


class Layer(StrEnum):
    """Where a rung looks, from the host inwards."""

    HOST = "L0"
    VM = "L1"
    CONTAINER = "Container"
    NESTED = "L2"


ALL_CLAIMS = frozenset(Claim)
NO_CLAIM: frozenset[Claim] = frozenset()


@dataclass(frozen=True, eq=False)
class Rung:
    """One checked step. Calling it looks at a site."""

    name: str
    """`layer.thing`, as documents, steps and reports have it."""
    meaning: str
    """What holds when it passes, in one sentence."""
    check: RungCheck
    layer: Layer
    label: str
    """What a report calls it within its layer."""
    needs: tuple[Rung, ...] = ()
    """What must have passed before it is tried."""
    required_by: frozenset[Claim] = ALL_CLAIMS
    """The claims that are confirmed only if it passed. For any other claim it only informs."""
    observed_by: frozenset[Claim] = NO_CLAIM
    """The claims that are confirmed only if it was looked at, whichever way it turned out."""
    decisive: bool = False
    """Its failure refutes a claim that requires it; that of any other rung leaves the claim untested."""
    shows: tuple[str, ...] = ()
    """Evidence files (lab.workflow.collect) in which more can be read about it."""
    why_not: Callable[[Site], str] = lambda _site: ""
    """Why a site cannot try it, as the end of a sentence; empty where it can."""

    def __call__(self, site: Site) -> Observation:
        return self.check(site)

    def __repr__(self) -> str:
        return f"<rung {self.name}>"


class Ladder:
    """Rungs, lowest first. Raises ValueError for two of a name, and for one that stands below its needs."""

    def __init__(self, rungs: Iterable[Rung]) -> None:
        self.rungs = tuple(rungs)
        for place, each in enumerate(self.rungs):
            below = self.rungs[:place]
            if each.name in (other.name for other in below):
                raise ValueError(f"two rungs are called {each.name}")
            if misplaced := [need.name for need in each.needs if need not in below]:
                raise ValueError(f"{each.name} needs what does not stand below it: {', '.join(misplaced)}")

    def __iter__(self) -> Iterator[Rung]:
        return iter(self.rungs)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Rung:
        """Raises KeyError for a name that is no rung's."""
        for each in self.rungs:
            if each.name == name:
                return each
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.rungs)

    @property
    def decisive(self) -> frozenset[str]:
        """The rungs whose failure refutes."""
        return frozenset(each.name for each in self.rungs if each.decisive)

    def prerequisites(self, name: str) -> tuple[str, ...]:
        """Every rung that must have passed before `name`, directly or not, lowest first."""
        needed: set[Rung] = set()
        todo = list(self[name].needs)
        while todo:
            need = todo.pop()
            needed.add(need)
            todo.extend(need.needs)
        return tuple(each.name for each in self.rungs if each in needed)

    def up_to(self, *rungs: Rung) -> tuple[str, ...]:
        """These rungs and every one they need, lowest first."""
        wanted = {each.name for each in rungs}.union(*(self.prerequisites(each.name) for each in rungs))
        return tuple(name for name in self.names if name in wanted)

    def required(self, claim: Claim) -> tuple[str, ...]:
        """The rungs that must have passed for a claim to be confirmed, lowest first."""
        return tuple(each.name for each in self.rungs if claim in each.required_by)

    def observed(self, claim: Claim) -> tuple[str, ...]:
        """The rungs a claim wants looked at, whichever way they turn out, lowest first."""
        return tuple(each.name for each in self.rungs if claim in each.observed_by)

    def informs(self, name: str, claim: Claim) -> bool:
        """Whether a rung only informs: the claim's verdict does not depend on how it turns out."""
        return claim not in self[name].required_by

    def informative(self, claim: Claim) -> tuple[str, ...]:
        """The rungs that only inform, lowest first."""
        return tuple(each.name for each in self.rungs if claim not in each.required_by)

    def checks(self, site: Site) -> dict[str, Callable[[], Observation]]:
        """The checks that can be tried on this site, ready to climb."""
        return {each.name: partial(each, site) for each in self.rungs if not each.why_not(site)}

    def skips(self, site: Site) -> dict[str, str]:
        """The rungs this site cannot try, with the reason."""
        return {each.name: why for each in self.rungs if (why := each.why_not(site))}

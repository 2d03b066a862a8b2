"""What was observed, beside what was predicted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lab.history.model import Night, cell_document
from lab.model.domain import Cell, Claim, Host, Verdict
from lab.theory.knowledge import Fact, Outlook, predict, table
from lab.theory.situation import Situation, of_cell


@dataclass(frozen=True)
class PastVerdict:
    """A verdict once given: of `runs` runs in one cell, combined (lab.theory.repeats)."""

    cell: Cell
    claim: Claim
    verdict: Verdict
    when: datetime
    """Of the last of the runs; with a time zone."""
    runs: int = 1


class Agreement(StrEnum):
    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    """A surprise, worth reporting: the prediction or the run is wrong."""
    ANSWERS = "answers"
    """Nobody knew, and now it was seen."""
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Seen:
    observation: PastVerdict
    predicted: Outlook
    comparison: Agreement


@dataclass
class FactRow:
    """One fact and what was observed where it decides; `fact` is None where none does."""

    fact: Fact | None
    seen: list[Seen] = field(default_factory=list)


def from_history(nights: Iterable[Night]) -> list[PastVerdict]:
    """What nights found of each claim, in their order; a night that did not know its cell found nothing."""
    return [
        PastVerdict(
            cell_of(cell_document(night.cell)),
            Claim(claimed.claim),
            Verdict(claimed.verdict),
            datetime.fromisoformat(night.started),
            sum(claimed.counts.values()) or 1,
        )
        for night in nights
        if night.cell is not None and night.verdict
        for claimed in night.claims
    ]


def cell_of(document: Mapping[str, Any]) -> Cell:
    """The cell of a lab.validation/1 document."""
    return Cell(**{**document, "host": Host(**document["host"])})


def compare(predicted: Outlook, verdict: Verdict) -> Agreement:
    """What a verdict says of a prediction.

    Only seeing decides: a run that was blocked, or that could not find out, says nothing of
    whether a claim holds. A predicted block is a prediction about the run, so it can be met and missed.
    """
    if verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE) or predicted is Outlook.NOT_APPLICABLE:
        return Agreement.NOT_TESTED
    if predicted.value == verdict.value:
        return Agreement.AGREES
    if verdict is Verdict.BLOCKED:
        return Agreement.NOT_TESTED
    return Agreement.ANSWERS if predicted is Outlook.UNKNOWN else Agreement.CONTRADICTS


def matrix(observations: Iterable[PastVerdict] = (), here: Situation | None = None) -> list[FactRow]:
    """All facts in their order, each with what was observed where it decides; the rest under None.

    `here` fills in what the cells of this host do not record (lab.theory.situation.of_cell).
    """
    rows = {fact.id: FactRow(fact) for fact in table().fact}
    rest = FactRow(None)
    for observation in observations:
        expected = predict(of_cell(observation.cell, here))
        predicted = expected.claims[observation.claim]
        entry = Seen(observation, predicted, compare(predicted, observation.verdict))
        (rows[expected.fact.id] if expected.fact else rest).seen.append(entry)
    return [*rows.values(), *([rest] if rest.seen else [])]

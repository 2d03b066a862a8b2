"""Expectations and observations as documents: theory.explain/1, theory.matrix/1 and their parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from lab import engines
from lab.ladder import report
from lab.theory import knowledge
from lab.theory.answers import (
    AskedHost,
    ExpectedEngine,
    FactEntry,
    MatrixRow,
    Prediction,
    SeenVerdict,
    SituationEntry,
    TheoryExplain,
    TheoryMatrix,
    WayEntry,
)
from lab.theory.knowledge import Expectation, Fact, Outlook, Way
from lab.theory.observed import Agreement, FactRow, Seen
from lab.theory.situation import Situation

_NOTHING = "lab knows nothing of this combination"


def explained(
    situation: Situation, rows: list[ExpectedEngine], *, host: str = "", engine: str = ""
) -> TheoryExplain:
    """`rows` are those of `expected_row`; `host` and `engine` are what was asked for."""
    ways = knowledge.ways(situation)
    others = {way.engine for way in ways if way.engine} - {row.engine for row in rows}
    beside = [expected_row(knowledge.predict(situation.on(name))) for name in sorted(others)]
    return TheoryExplain(
        asked=AskedHost(host=host or None, engine=engine or None),
        situation=SituationEntry(described=situation.describe(), **_plain(situation)),
        in_short=in_short(rows, beside),
        engines=rows,
        ways=[WayEntry(id=way.id, how=way.how, **_evidence(way)) for way in ways],
    )


def matrix(rows: Iterable[FactRow]) -> TheoryMatrix:
    listed = list(rows)
    observations = [item for row in listed for item in row.seen]
    return TheoryMatrix(
        rows=[_matrix_row(row) for row in listed],
        observations=len(observations),
        contradictions=sum(item.comparison is Agreement.CONTRADICTS for item in observations),
    )


def expected_row(
    expected: Expectation, available: bool | None = None, availability: str = ""
) -> ExpectedEngine:
    """One engine. `available` is whether it can start a VM on this host, None when it was not looked at."""
    situation, fact = expected.situation, expected.fact
    return ExpectedEngine(
        engine=situation.engine,
        version=situation.engine_version,
        driven=situation.engine in engines.names(),
        available=available,
        availability=availability,
        claims={claim.value: outlook for claim, outlook in expected.claims.items()},
        fact=_fact(fact) if fact else None,
        why=_why(expected),
        open=[_fact(each) for each in expected.open],
    )


def predictions(expected: Expectation) -> list[Prediction]:
    """The prediction for each claim, for a report."""
    fact = expected.fact
    return [
        Prediction(
            claim=claim,
            predicted=outlook,
            why=_why(expected),
            source="; ".join(fact.sources) if fact else "",
            grade=fact.grade.value if fact else "",
        )
        for claim, outlook in expected.claims.items()
    ]


def _why(expected: Expectation) -> str:
    if expected.fact:
        return expected.fact.why
    return _depends(expected.situation) if expected.open else _NOTHING


def _depends(situation: Situation) -> str:
    parts = [] if situation.engine_version else ["its version"]
    if situation.system == "windows" and situation.hyperv is None:
        parts.append("whether Windows' own hypervisor is active")
    return f"it depends on {' and on '.join(parts) or 'what is not known of this host'}"


def in_short(rows: Iterable[ExpectedEngine], beside: Iterable[ExpectedEngine] = ()) -> str:
    """The answer in a sentence, from what is predicted for Android.

    `rows` are the engines that are shown, `beside` those that only the ways to go take: nothing that is
    said under the sentence may contradict it.
    """
    shown = list(rows)
    engines_of: dict[str, list[str]] = {}
    for row in (*shown, *beside):
        engines_of.setdefault(_prospect(row), []).append(row.engine)
    if len(shown) > 1 or "works" not in engines_of:
        engines_of.pop("not", None)  # it is an answer to who asked about one engine and gets another
    parts = [
        f"{words} {', '.join(engines_of[prospect])}{end}"
        for prospect, words, end in (
            ("works", "x86 Android in a container is expected to work here with", ""),
            ("unusable", "it would be expected to work with", ", which is not usable here"),
            ("depends", "it is expected to work in some cases with", ""),
            ("unknown", "whether it does with", " is not known"),
            ("not", "it is not expected to with", ""),
        )
        if prospect in engines_of
    ]
    if "works" not in engines_of:
        sure = "sure" if {"unusable", "depends"} & engines_of.keys() else "known"
        parts.insert(0, f"nothing is {sure} to run x86 Android in a container here")
    return "; ".join(parts)


def _prospect(row: ExpectedEngine) -> str:
    """What an engine promises for Android: by its fact, and by those that would decide in its place."""
    outlooks = {row.claims.android, *(fact.android for fact in row.open)}
    if outlooks == {Outlook.CONFIRMED}:
        return "unusable" if row.available is False else "works"
    if Outlook.CONFIRMED in outlooks:
        return "depends"
    return "unknown" if Outlook.UNKNOWN in outlooks else "not"


def _fact(fact: Fact) -> FactEntry:
    return FactEntry(
        id=fact.id,
        where=fact.match.describe(),
        nesting=fact.nesting,
        android=fact.android,
        rung=fact.rung or None,
        why=fact.why,
        **_evidence(fact),
    )


def _evidence(entry: Fact | Way) -> dict[str, Any]:
    return {
        "grade": entry.grade.value,
        "date": entry.date.isoformat(),
        "sources": list(entry.sources),
    }


def _plain(situation: Situation) -> dict[str, Any]:
    values = asdict(situation)
    return {name: value for name, value in values.items() if not name.startswith("engine")}


def _matrix_row(row: FactRow) -> MatrixRow:
    return MatrixRow(
        fact=_fact(row.fact) if row.fact else None,
        theory=(row.fact.android if row.fact and row.fact.match.theory else None),
        observed=[_seen(item) for item in row.seen],
    )


def _seen(item: Seen) -> SeenVerdict:
    observation = item.observation
    return SeenVerdict(
        cell=report.describe(observation.cell),
        claim=observation.claim,
        verdict=observation.verdict,
        predicted=item.predicted,
        comparison=item.comparison,
        when=observation.when.isoformat(),
        runs=observation.runs,
    )

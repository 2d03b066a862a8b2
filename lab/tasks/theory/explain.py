"""theory.explain and theory.matrix: what is known and expected, before and beside what was observed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab import engines
from lab.core.errors import LabError
from lab.history.store import History
from lab.theory import documents, knowledge, observed
from lab.theory.answers import (
    ExpectedEngine,
    FactEntry,
    SeenVerdict,
    TheoryExplain,
    TheoryMatrix,
    WayEntry,
)
from lab.theory.documents import expected_row
from lab.theory.knowledge import Expectation, Outlook
from lab.theory.observed import Agreement, PastVerdict
from lab.theory.situation import ENGINES, Situation, of_host, parse_engine, parse_host
from lab.workflow.session import Reply, Session

_WORDS = {
    Outlook.CONFIRMED: "expected to work",
    Outlook.REFUTED: "expected not to work",
    Outlook.BLOCKED: "cannot be tested",
    Outlook.UNKNOWN: "to be seen",
}
_STYLES = {
    Outlook.CONFIRMED.value: "green",
    Outlook.REFUTED.value: "bold red",
    Outlook.BLOCKED.value: "yellow",
    Outlook.UNKNOWN.value: "yellow",
    Agreement.CONTRADICTS.value: "bold red",
}
_PREDICTED = "These are predictions; `bin/invoke lab.up` finds out. What the grades mean: docs/theory.md"
_UNPROVEN = "not proven"
"""How lab.host.kvm begins an answer when it could not find out."""


def explain(session: Session, host: str = "", engine: str = "") -> Reply:
    """What lab expects of this host, or of the one that `host` names, and what would work there.

    Without `engine`, of each that could run there. Nothing is built or started, but for the
    functional probe of this host's KVM, whose answer is kept.
    """
    name, version = parse_engine(engine) if engine else ("", "")
    if host:
        situation = parse_host(host)
        rows = [
            expected_row(knowledge.predict(situation.on(each, version if each == name else "")))
            for each in _names(name, situation)
        ]
    else:
        situation = here(session)
        rows = [_on_this_host(session, each, version, situation) for each in _names(name, situation)]
    document = documents.explained(situation, rows, host=host, engine=engine)
    return Reply(document.as_json(), lambda console: _show_explained(console, document))


def matrix(session: Session) -> Reply:
    """Everything that is known, each with what nights observed where it decides."""
    past = observations(session)
    document = documents.matrix(observed.matrix(past, here(session) if past else None))
    return Reply(document.as_json(), lambda console: _show_matrix(console, document))


def observations(session: Session) -> list[PastVerdict]:
    """What the nights so far found; nothing before the first."""
    # Imported when used: nights bring reports and notifications, which explain does without.

    path = session.history_file
    if not path.is_file():
        return []
    with History(path) as past:
        return observed.from_history(reversed(past.nights()))


def here(session: Session) -> Situation:
    """This host. Its KVM is asked by booting a kernel under it, once in a boot."""
    qemu = session.settings.qemu.binary
    with session.steps.step("theory.host", "does a kernel really run under this host's KVM?"):
        answer = session.factories.kvm(session.settings.cache_dir, False, session.kernel, qemu)
    unproven = answer.why.startswith(_UNPROVEN) or shutil.which(qemu) is None
    usable = None if unproven and not answer.usable else answer.usable
    return of_host(session.factories.host(), usable, answer.nested)


def _names(name: str, situation: Situation) -> list[str]:
    """The engine asked for, or lab's own and then those of which something is known there."""
    if name:
        return [name]
    others = [each for each in ENGINES if each not in engines.names()]
    known = [each for each in others if _known(knowledge.predict(situation.on(each)))]
    return [*engines.names(), *known]


def _known(expected: Expectation) -> bool:
    return expected.fact is not None or bool(expected.open)


def _on_this_host(session: Session, name: str, version: str, situation: Situation) -> ExpectedEngine:
    """An engine as it is here; one that lab does not drive is not looked for."""
    if name not in engines.names() or version:
        return expected_row(knowledge.predict(situation.on(name, version)))
    try:
        engine = session.engine(name)
        availability = engine.availability()
        facts = engine.facts() if availability.usable else None
    except LabError as error:
        return expected_row(knowledge.predict(situation.on(name)), available=False, availability=error.what)
    there = situation.on(name, facts.version if facts else "")
    if facts is not None:
        there = there.running(facts.acceleration)
    return expected_row(
        knowledge.predict(there), available=availability.usable, availability=availability.why
    )


# --- for people --------------------------------------------------------------------------------


def _show_explained(console: Console, document: TheoryExplain) -> None:
    whose = "the host asked about" if document.asked.host else "this host"
    _line(console, Text(f"{whose}: {document.situation.described}", "bold"))
    _line(console, Text(f"In short: {document.in_short}."))
    driven = [row for row in document.engines if row.driven]
    others = [row for row in document.engines if not row.driven]
    for row in driven:
        _show_engine(console, row)
    if others:
        console.print()
        _line(
            console,
            Text("Other roads, for which lab makes no VM, and attaches one (docs/attach.md):", "bold"),
        )
        for row in others:
            _show_engine(console, row)
    console.print()
    _line(console, Text("What would work here:", "bold"))
    for way in document.ways:
        _line(console, Text(f"{way.how}."), 2, "• ")
        _line(console, _cited(way), 4)
    if not document.ways:
        _line(console, Text("nothing that lab knows of"), 2)
    console.print()
    _line(console, Text(_PREDICTED, "dim"))


def _show_engine(console: Console, row: ExpectedEngine) -> None:
    console.print()
    title = Text(f"{row.engine} {row.version}".rstrip(), "bold")
    if row.available is False:
        title.append(f": not usable here ({row.availability})", "not bold")
    _line(console, title)
    fact = row.fact
    if fact is None:
        _line(console, Text(f"{row.why}."), 2)
    else:
        _show_fact(console, fact, row.claims.theory)
    for other in row.open:
        _line(console, Text(f"if {other.where}"), 2)
        _show_fact(console, other, None, 4)


def _show_fact(console: Console, fact: FactEntry, theory: str | None, indent: int = 2) -> None:
    line = _predicted(fact)
    if theory and theory != Outlook.NOT_APPLICABLE:
        line.append("; theory: ").append(theory, _STYLES.get(theory, ""))
    _line(console, line, indent)
    _line(console, Text(f"{fact.why}."), indent)
    _line(console, _cited(fact), indent)


def _predicted(fact: FactEntry) -> Text:
    nesting, android = Outlook(fact.nesting), Outlook(fact.android)
    line = Text("nesting: ").append(nesting, _STYLES[nesting]).append(f" ({_WORDS[nesting]}")
    if fact.rung and nesting is not Outlook.CONFIRMED:
        line.append(f" at {fact.rung}" if nesting is Outlook.UNKNOWN else f", at {fact.rung}")
    return line.append("); android: ").append(android, _STYLES[android])


def _cited(entry: FactEntry | WayEntry) -> Text:
    return Text(f"{entry.grade}, {entry.date}: {'; '.join(entry.sources)}", "dim")


def _show_matrix(console: Console, document: TheoryMatrix) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 1, 0))
    table.add_column("where", overflow="fold", ratio=4)
    table.add_column("predicted", overflow="fold", ratio=4)
    table.add_column("observed", overflow="fold", ratio=3)
    for row in document.rows:
        fact = row.fact
        if fact is None:
            where, predicted = Text("cells of which nothing is known"), Text("unknown")
        else:
            where = Text(fact.where)
            predicted = Text("nesting ").append(fact.nesting, _STYLES[fact.nesting])
            if fact.rung and fact.nesting != Outlook.CONFIRMED:
                predicted.append(f" at {fact.rung}")
            predicted.append("\nandroid ").append(fact.android, _STYLES[fact.android])
            if row.theory:
                predicted.append("\ntheory ").append(row.theory, _STYLES[row.theory])
            predicted.append(f"\n{fact.grade}, {fact.date}", "dim")
        table.add_row(where, predicted, _observed(row.observed))
    console.print(table, soft_wrap=False)
    surprises = document.contradictions
    _line(
        console,
        Text(
            f"{document.observations} observations in the history"
            + (f", {surprises} of which contradict their prediction" if surprises else "")
        ),
    )


def _observed(items: Sequence[SeenVerdict]) -> Text:
    lines = []
    for item in items:
        runs = f" ({item.runs} runs)" if item.runs > 1 else ""
        line = Text(f"{item.claim} {item.verdict}{runs}, {item.when[:10]}: ")
        lines.append(line.append(item.comparison, _STYLES.get(item.comparison, "")))
    return Text("\n").join(lines) if lines else Text("-", "dim")


def _line(console: Console, text: Text, indent: int = 0, bullet: str = "") -> None:
    """A paragraph, wrapped whether or not this is a terminal; `bullet` hangs before its first line."""
    margin = " " * indent
    for number, part in enumerate(text.wrap(console, console.width - indent - len(bullet))):
        part.rstrip()
        lead = margin + (bullet if number == 0 else " " * len(bullet))
        console.print(Text(lead).append_text(part), highlight=False, soft_wrap=True)

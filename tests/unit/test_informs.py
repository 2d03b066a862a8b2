"""A rung that was seen to fail and only informs: its own mark and colour wherever a person reads of it."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from lab.cli.console import LiveSink, PlainSink
from lab.core import deadline
from lab.core.steps import Event, JsonLines, Steps
from lab.core.tell import Terminal
from lab.documents.reports import ReportStep
from lab.host.facts import HostFacts
from lab.ladder.climb import climb
from lab.ladder.report import table, word
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Outcome, Status
from lab.reports.html import Html
from lab.reports.junit import JUnit
from lab.reports.markdown import Markdown
from lab.reports.model import ReportedRun, ReportInput
from lab.reports.spans import Timeline
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from tests.unit.bed import Bed, host
from tests.unit.pages import Page
from tests.unit.reports import DOCUMENTS, MAC, SEEN, fails, made
from tests.unit.test_climb import BAD, GOOD, answers
from tests.unit.test_report import cases

NAMES = LADDER.names

BLUE, RED = "\x1b[34mi\x1b[0m", "\x1b[31m✗\x1b[0m"


def _events(informative: tuple[str, ...] = ("host.cpu", "guest.paravirt")) -> list[Event]:
    heard: list[Event] = []
    checks = dict.fromkeys(NAMES, answers(GOOD)) | dict.fromkeys(("host.cpu", "guest.kvm"), answers(BAD))
    climb(checks, steps=Steps(heard.append), informative=informative)
    return [event for event in heard if event.kind == "failed"]


def test_the_live_steps(tmp_path: Path) -> None:
    cpu, kvm = _events()
    assert [(event.name, event.informs) for event in (cpu, kvm)] == [("host.cpu", True), ("guest.kvm", False)]
    plain = Terminal(io.StringIO(), width=200)
    lines, log = PlainSink(plain), JsonLines(tmp_path / "steps.jsonl")
    live = LiveSink(Terminal(shown := io.StringIO(), force_terminal=True, width=200))
    for event in (cpu, kvm):
        for sink in (lines, live, log):
            sink(event)
    assert isinstance(plain.file, io.StringIO)
    first, second = plain.file.getvalue().splitlines()
    assert first[9:24] == "info  host.cpu " and second[9:25] == "FAIL  guest.kvm "
    first, second = [line for line in shown.getvalue().splitlines() if "host.cpu" in line or "kvm" in line]
    assert BLUE in first and RED not in first and RED in second
    first, second = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert '"informs": true' in first and "informs" not in second  # in the log both failed, as ever
    assert '"kind": "failed"' in first


def test_a_rung_that_could_not_be_looked_at_does_not_inform() -> None:
    heard: list[Event] = []

    def late() -> object:
        raise deadline.DeadlineError("nobody answers")

    checks = dict.fromkeys(NAMES, answers(GOOD)) | {"guest.paravirt": late}
    climb(checks, steps=Steps(heard.append), informative=["guest.paravirt"])  # type: ignore[arg-type]
    (event,) = [event for event in heard if event.kind == "failed"]
    assert not event.informs


@pytest.mark.parametrize("claim", list(Claim))
@pytest.mark.parametrize("rung", NAMES)
def test_the_word_follows_the_claim(rung: str, claim: Claim) -> None:
    failed = Outcome(rung, Status.FAILED, "that", "something else")
    assert word(failed, claim) == ("failed" if rung in LADDER.required(claim) else "informs")
    assert word(dataclasses.replace(failed, status=Status.INCONCLUSIVE), claim) == "inconclusive"
    for status in (Status.PASSED, Status.BLOCKED, Status.SKIPPED):
        assert word(dataclasses.replace(failed, status=status), claim) == status


def test_the_ladders_table() -> None:
    found = climb(dict.fromkeys(NAMES, answers(GOOD)) | {"host.cpu": answers(BAD)}, steps=Steps()).outcomes
    shown = {}
    for claim in Claim:
        console = Console(file=io.StringIO(), force_terminal=True, width=110)
        console.print(table(found, claim))
        assert isinstance(console.file, io.StringIO)
        shown[claim] = next(line for line in console.file.getvalue().splitlines() if "host.cpu" in line)
    assert "informs" in shown[Claim.NESTING] and "\x1b[34mi" in shown[Claim.NESTING]
    assert "failed" in shown[Claim.THEORY] and "✗" in shown[Claim.THEORY]


@pytest.mark.parametrize("kind", ["confirmed", "inconclusive", "android blocked"])
def test_the_reports(kind: str, tmp_path: Path) -> None:
    spans = tuple(
        ReportStep(step=step, parent=0, name=name, start=step, seconds=1.0, state="failed", text="")
        for step, name in enumerate(("host.cpu", "vm.boot"), 1)
    )
    run = ReportInput((ReportedRun(DOCUMENTS[kind], steps=Timeline(spans)),))
    text = Html().render(run, tmp_path)
    rows = [row for row in Page(text).all("tr") if "informs" in (row.attributes.get("class") or "").split()]
    said = [row.said for row in rows if "host.cpu" in row.said or "guest.paravirt" in row.said]
    assert len(said) == 2 and all("informs" in row and "failed" not in row for row in said)
    assert 'href="#mark-informs"' in text and 'id="mark-informs"' in text
    assert len(re.findall(r'<g class="bar informs">', text)) == 2  # for a desktop, and for a phone
    assert len(re.findall(r'<g class="bar failed">', text)) == 2
    lines = Markdown().render(run, tmp_path).splitlines()
    assert next(line for line in lines if line.startswith("| host.cpu")).split("|")[2].strip() == "🔵 informs"
    junit = {name: child for _, name, child in cases(JUnit().render(run, tmp_path))}
    assert junit["host.cpu"] is not None and junit["host.cpu"].tag == "skipped"
    # In JSON the rung's status is what it was.
    status = {row["rung"]: row["status"] for row in run.last.document["rungs"]}
    assert status["host.cpu"] == "failed"


def test_where_the_theory_is_asked_about_the_processor_is_no_mere_information(tmp_path: Path) -> None:
    document = made(MAC, Claim.THEORY, fates={"host.cpu": fails("no Hypervisor.framework")}, facts={})
    lines = Markdown().render(ReportInput((ReportedRun(document),)), tmp_path).splitlines()
    assert "❌ failed" in next(line for line in lines if line.startswith("| host.cpu"))
    assert SEEN["host.cpu"].ok is False


def _without_extensions(bed: Bed, system: str) -> None:
    def facts() -> HostFacts:
        plain = host()
        return dataclasses.replace(plain, os=system, cpu=dataclasses.replace(plain.cpu, extensions=()))

    bed.use(host=facts)


@pytest.mark.parametrize(
    ("system", "claim", "informs"),
    [("Debian", "", True), ("Debian", "theory", False), ("macOS", "", True), ("macOS", "theory", False)],
)
def test_a_whole_climb(bed: Bed, system: str, claim: str, informs: bool) -> None:
    up(bed.session(), "default")
    _without_extensions(bed, system)
    heard: list[Event] = []
    session = bed.session()
    session.steps.subscribe(heard.append)
    reply = validate(session, "default", claim)
    (event,) = [event for event in heard if event.name == "host.cpu" and event.kind == "failed"]
    assert event.informs is informs
    assert reply.show
    reply.show(Console(file=(shown := io.StringIO()), width=110))
    line = next(line for line in shown.getvalue().splitlines() if "host.cpu" in line)
    assert ("informs" in line) is informs and ("failed" in line) is not informs

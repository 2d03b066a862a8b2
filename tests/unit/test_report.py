"""Every reporter, of every way a run can end: it says what was found, and nothing that was not."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings

from lab import reports
from lab.core import redact
from lab.core.characters import printable
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Verdict
from lab.reports import links, markdown, wording
from lab.reports.document import document
from lab.reports.junit import JUnit
from lab.reports.model import ReportedRun, ReportInput
from lab.reports.text import seconds
from tests import schema
from tests.unit.pages import Page
from tests.unit.reports import DOCUMENTS, HOSTILE, VERDICTS, documents, full, inputs, kept, made

HERE = Path("/nowhere/reports")
XSD = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
# The machine may be busy: how long an example takes says nothing.
UNHURRIED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
KINDS = pytest.mark.parametrize("kind", DOCUMENTS)


def rendered(run: ReportInput) -> dict[str, str]:
    return {reporter.format: reporter.render(run, HERE) for reporter in reports.reporters()}


def cases(text: str) -> Iterator[tuple[str, str, Xml.Element | None]]:
    """Class, name, and the child that says how it ended; None for a pass."""
    for case in Xml.fromstring(text).iter("testcase"):  # noqa: S314 - lab's own
        yield case.attrib["classname"], case.attrib["name"], next(iter(case), None)


def ends(text: str) -> dict[str, str]:
    return {name: "passed" if child is None else child.tag for _, name, child in cases(text)}


def test_the_documents_are_of_every_kind() -> None:
    assert {name: Verdict(found["verdict"]) for name, found in DOCUMENTS.items()} == VERDICTS
    assert set(VERDICTS.values()) == set(Verdict)
    assert {row["status"] for found in DOCUMENTS.values() for row in found["rungs"]} == {
        "passed",
        "failed",
        "blocked",
        "skipped",
    }


# --- the same in all formats -------------------------------------------------------------------


@KINDS
def test_all_are_written_beside_the_evidence(kind: str, tmp_path: Path) -> None:
    folder = kept(tmp_path / "default" / "1-up", DOCUMENTS[kind])
    written = reports.write(reports.read([reports.RunFolder(folder)]), folder)
    assert {form: path.name for form, path in written.items()} == {
        "html": "report.html",
        "json": "report.json",
        "junit": "junit.xml",
        "markdown": "report.md",
    }
    schema.validate(json.loads(written["json"].read_text()))
    again = reports.read([reports.RunFolder(folder)])
    assert not set(again.last.files) & {path.name for path in written.values()}, "a report is no evidence"
    assert reports.write(again, folder) == written


@KINDS
def test_the_verdict_comes_first(kind: str) -> None:
    run = full(kind)
    found = rendered(run)
    word, sentence = VERDICTS[kind].value, wording.headline(run)
    assert found["markdown"].splitlines()[0] == (
        f"# {markdown._MARKS[word]} {word.capitalize()}: {markdown.escaped(sentence)}"
    )
    heading = Page(found["html"]).one("h1").said
    assert heading == f"{word.capitalize()} {sentence}"
    for part in (wording.engine(run.last.cell), run.last.cell.host.os):
        assert part in sentence, "a verdict holds for its cell and no other"
    assert json.loads(found["json"])["headline"] == sentence


@KINDS
def test_what_is_not_proven_is_said_everywhere(kind: str) -> None:
    run = full(kind)
    limits = wording.not_proven(run)
    assert limits
    found = rendered(run)
    assert document(run)["not_proven"] == limits
    for limit in limits:
        assert f"- {markdown.escaped(limit)}" in found["markdown"].splitlines()
        assert limit in Page(found["html"]).one("main").said


def test_a_test_double_is_never_taken_for_android() -> None:
    facts = {"android.boot": {"double": True}}
    run = ReportInput((ReportedRun(DOCUMENTS["theory confirmed"] | {"facts": facts}),))
    assert any("test double" in limit for limit in wording.not_proven(run))


def test_runs_that_differ_settle_nothing() -> None:
    runs = tuple(ReportedRun(DOCUMENTS[kind]) for kind in ("confirmed", "inconclusive", "confirmed"))
    run = ReportInput(runs)
    assert run.verdict is Verdict.INCONCLUSIVE
    assert "2 confirmed" in run.reason and "1 inconclusive" in run.reason
    found = rendered(run)
    assert "was not settled" in Page(found["html"]).one("h1").said
    assert "passed in 2 of 3" in Page(found["html"]).one("main").said
    assert json.loads(found["json"])["counts"] == [
        {"verdict": "confirmed", "runs": 2},
        {"verdict": "inconclusive", "runs": 1},
    ]
    assert len(Xml.fromstring(found["junit"])) == 3  # noqa: S314 - lab's own
    assert "3 runs" in found["markdown"].splitlines()[0]


def test_one_report_is_of_one_cell_and_one_claim() -> None:
    for other in ("not applicable", "refuted"):
        with pytest.raises(ValueError, match="differ"):
            ReportInput((ReportedRun(DOCUMENTS["confirmed"]), ReportedRun(DOCUMENTS[other])))
    with pytest.raises(ValueError, match="one run"):
        ReportInput(())


def test_secrets_are_masked(tmp_path: Path) -> None:
    found = made(name="s3cret-of-the-lab")
    folder = kept(tmp_path / "default" / "1-up", found)
    redact.register("s3cret-of-the-lab")
    for path in reports.write(reports.read([reports.RunFolder(folder)]), folder).values():
        assert "s3cret" not in path.read_text()


@UNHURRIED
@given(inputs())
def test_anything_can_be_reported(run: ReportInput) -> None:
    for form, text in rendered(run).items():
        assert text == printable(text), f"{form} has characters that no reader takes"
        text.encode()


# --- JSON --------------------------------------------------------------------------------------


def test_an_emulated_pc_is_named_in_every_report() -> None:
    found = copy.deepcopy(DOCUMENTS["confirmed"])
    found["cell"]["host"]["pc"] = "Bochs 2.7, corei7_haswell_4770"
    for name, text in rendered(ReportInput((ReportedRun(found),))).items():
        assert "Bochs 2.7, corei7" in text.replace("\\", ""), name
    found["cell"]["host"].pop("pc")
    for name, text in rendered(ReportInput((ReportedRun(found),))).items():
        assert "emulated PC" not in text, name


@KINDS
def test_the_json_keeps_to_its_schema(kind: str) -> None:
    schema.validate(document(full(kind)))
    assert document(full(kind))["runs"][0]["validation"] == DOCUMENTS[kind]


@UNHURRIED
@given(inputs())
def test_any_json_keeps_to_its_schema(run: ReportInput) -> None:
    found = json.loads(rendered(run)["json"])
    schema.validate(found)
    assert found["verdict"] == run.runs[0].document["verdict"]


def test_what_lab_up_says_is_reported_as_a_validation() -> None:
    up = DOCUMENTS["confirmed"] | {"schema": "lab.up/1", "access": None}
    assert ReportedRun(up).document == ReportedRun(DOCUMENTS["confirmed"]).document


# --- JUnit -------------------------------------------------------------------------------------


@KINDS
def test_junit_is_valid_and_counts_right(kind: str) -> None:
    text = rendered(full(kind))["junit"]
    XSD.validate(text)
    suites = Xml.fromstring(text)  # noqa: S314 - lab's own
    for suite in suites:
        found = [child for _, _, child in cases(Xml.tostring(suite, encoding="unicode"))]
        assert int(suite.attrib["tests"]) == len(found) == len(LADDER.names) + len(Claim)
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[count]) == sum(child is not None and child.tag == tag for child in found)


@UNHURRIED
@given(inputs())
def test_any_junit_is_valid(run: ReportInput) -> None:
    XSD.validate(rendered(run)["junit"])


def test_how_rungs_end_in_junit() -> None:
    refuted = ends(rendered(full("refuted"))["junit"])
    assert refuted["guest.kvm"] == refuted["android"] == "failure"
    assert refuted["container.kvm"] == "skipped"
    inconclusive = ends(rendered(full("inconclusive"))["junit"])
    assert inconclusive["nested.adb"] == inconclusive["nesting"] == "error"
    blocked = ends(rendered(full("blocked"))["junit"])
    assert blocked["host.engine"] == blocked["nesting"] == "skipped"
    # Not looked at is no pass.
    assert ends(rendered(full("cut short"))["junit"])["container.kvm"] == "error"


def test_what_only_informs_turns_no_build_red() -> None:
    found = ends(rendered(full("confirmed"))["junit"])
    assert found["host.cpu"] == found["guest.paravirt"] == "skipped"
    assert not {"failure", "error"} & set(found.values())
    reasons = {name: child for _, name, child in cases(rendered(full("confirmed"))["junit"])}
    said = reasons["host.cpu"]
    assert said is not None and said.attrib["message"].startswith("failed, and only informs: AMD EPYC")


@UNHURRIED
@given(documents())
def test_junit_is_green_only_where_the_claim_is_confirmed(found: dict[str, object]) -> None:
    run = ReportedRun(found)
    results = ends(JUnit().render(ReportInput((run,)), HERE))
    green = results[run.claim] == "passed"
    assert green == (run.verdict is Verdict.CONFIRMED)
    if run.verdict is Verdict.REFUTED:
        assert "failure" in results.values()
    if run.verdict is Verdict.INCONCLUSIVE:
        assert results[run.claim] == "error"


# --- Markdown ----------------------------------------------------------------------------------

_ESCAPED = re.compile(r"\\.")


@UNHURRIED
@given(inputs())
def test_nothing_that_was_said_becomes_markdown(run: ReportInput) -> None:
    text = rendered(run)["markdown"]
    bare = _ESCAPED.sub("", text)
    assert "<" not in bare and "`" not in bare and "![" not in bare
    headings = [line for line in text.splitlines() if line.startswith("#")]
    known = (
        "# ",
        "## Since the last good run",
        "## Claims",
        "## Layers",
        "## Ladder",
        "## Predictions",
        "## Comparison",
        "## Experiment",
        "## Not proven",
    )
    assert all(line.startswith((*known, "## Evidence")) for line in headings)
    tables = re.findall(r"(?:^\|.*\n)+", bare, re.MULTILINE)
    assert len(tables) == 7
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for target in re.findall(r"\]\(([^)]*)\)", bare):
        assert re.fullmatch(r"[\w./%~-]+", target), "only evidence is linked to"


@pytest.mark.parametrize(
    ("said", "escaped"),
    [
        ("7.2.22 (tcg)", "7.2.22 (tcg)"),
        ("1. one", "1\\. one"),
        ("12) twelve", "12\\) twelve"),
        ("- item", "\\- item"),
        ("a\n# b", "a \\# b"),
        ("<b>&amp;", "&lt;b\\>&amp;amp;"),
        ("http://evil.example", "http\\://evil.example"),
        ("a_b | c", "a\\_b \\| c"),
    ],
)
def test_how_text_is_escaped_in_markdown(said: str, escaped: str) -> None:
    assert markdown.escaped(said) == escaped


# --- texts and links ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "< 0.1 s"),
        (0.26, "0.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (97.4, "97 s"),
        (120.0, "2 min"),
        (150.5, "2 min 30 s"),
        (3600.0, "1 h"),
        (7384.0, "2 h 3 min"),
    ],
)
def test_how_durations_are_said(value: float, said: str) -> None:
    assert seconds(value) == said


def test_links_lead_to_evidence_and_nowhere_else(tmp_path: Path) -> None:
    folder = kept(tmp_path / "default" / "1-up", DOCUMENTS["confirmed"])
    (tmp_path / "outside.txt").write_text("no evidence")
    run = reports.read([reports.RunFolder(folder)]).last
    outcome = run.outcomes["nested.boot"]
    for named in (*HOSTILE, "../../outside.txt", str(tmp_path / "outside.txt"), "gone.log"):
        object.__setattr__(outcome, "evidence", (named,))
        first = links.of_rung(run, outcome, folder)[0]
        assert first == links.EvidenceLink(printable(named)), "it is named, and no link"
    for named in ("container.log", str(folder / "container.log")):
        object.__setattr__(outcome, "evidence", (named,))
        assert links.of_rung(run, outcome, folder)[0].href == "container.log"
        assert links.of_rung(run, outcome, tmp_path)[0].href == "default/1-up/container.log"
    odd = next(link for link in links.evidence(run, folder) if "odd" in link.text)
    assert odd.href == "a%20file%2C%20by%20name%3A%20odd.txt"

"""The report as JUnit XML, for continuous integration: a suite a run, a test case a rung and a claim.

What a verdict does not depend on never turns a build red, and what was not seen never turns it green.
"""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as Xml

from lab.core.characters import one_line
from lab.ladder.report import describe
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Outcome, Status, Verdict
from lab.reports.model import ReportedRun, ReportInput
from lab.reports.wording import NOT_LOOKED_AT, SAYS

Result = Literal["passed", "failure", "error", "skipped"]

_VERDICTS: dict[Verdict, Result] = {
    Verdict.CONFIRMED: "passed",
    Verdict.REFUTED: "failure",
    Verdict.INCONCLUSIVE: "error",
    Verdict.BLOCKED: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}


class JUnit:
    format = "junit"
    file = "junit.xml"

    def render(self, run: ReportInput, _folder: Path) -> str:
        suites = Xml.Element("testsuites")  # without attributes: Ant's schema knows none
        for number, each in enumerate(run.runs):
            suites.append(_suite(number, each))
        Xml.indent(suites)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suites, encoding="unicode") + "\n"


def _suite(number: int, run: ReportedRun) -> Xml.Element:
    suite = Xml.Element(
        "testsuite",
        id=str(number),
        name=one_line(run.document["lab"]["name"]),
        package="lab",
        timestamp=run.started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname="localhost",
        time=_seconds(float(run.document["seconds"])),
    )
    properties = Xml.SubElement(suite, "properties")
    for name, value in (
        ("claim", run.claim.value),
        ("verdict", run.verdict.value),
        ("reason", run.document["reason"]),
        ("cell", describe(run.cell)),
        ("lab_version", run.document["lab_version"]),
    ):
        Xml.SubElement(properties, "property", name=name, value=one_line(value))
    results = [_rung(suite, name, run.outcomes.get(name), run.claim) for name in LADDER.names]
    results += [_claim(suite, claim, run) for claim in Claim]
    counted: tuple[tuple[str, Result], ...] = (
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    )
    suite.set("tests", str(len(results)))
    for key, result in counted:
        suite.set(key, str(results.count(result)))
    Xml.SubElement(suite, "system-out").text = ""
    Xml.SubElement(suite, "system-err").text = ""
    return suite


def _rung(suite: Xml.Element, name: str, outcome: Outcome | None, claim: Claim) -> Result:
    case = _case(suite, "rungs", name, outcome.seconds if outcome else 0.0)
    if outcome is None:
        return _say(case, "error", "lab", NOT_LOOKED_AT, "the run ended before this rung was reached")
    if outcome.passed:
        return "passed"
    details = "\n".join(
        f"{label}: {text}"
        for label, text in (
            ("expected", outcome.expected),
            ("observed", outcome.observed),
            ("hint", outcome.hint),
            ("evidence", ", ".join(outcome.evidence)),
        )
        if text
    )
    if outcome.status is Status.INCONCLUSIVE:
        return _say(case, "error", "inconclusive", outcome.observed, details)
    if outcome.status is Status.FAILED and not LADDER.informs(name, claim):
        return _say(case, "failure", "failed", outcome.observed, details)
    why = "failed, and only informs" if outcome.status is Status.FAILED else outcome.status.value
    return _say(case, "skipped", outcome.status.value, f"{why}: {outcome.observed}", details)


def _claim(suite: Xml.Element, claim: Claim, run: ReportedRun) -> Result:
    judged = run.document["claims"][claim]
    case = _case(suite, "claims", claim.value, 0.0)
    result = _VERDICTS[Verdict(judged["verdict"])]
    if result == "passed":
        return result
    return _say(case, result, judged["verdict"], f"{judged['verdict']}: {judged['reason']}", SAYS[claim])


def _case(suite: Xml.Element, kind: str, name: str, seconds: float) -> Xml.Element:
    return Xml.SubElement(suite, "testcase", classname=f"lab.{kind}", name=name, time=_seconds(seconds))


def _say(case: Xml.Element, result: Result, kind: str, message: str, text: str) -> Result:
    element = Xml.SubElement(case, result, message=one_line(message))
    element.text = text
    if result != "skipped":  # Ant's schema knows the attribute of the other two only, and demands it there
        element.set("type", kind)
    return result


def _seconds(value: float) -> str:
    """Without an exponent and without a thousands separator: readers differ in what they take."""
    return f"{value:.3f}"

"""The project's own tasks: tests and linters."""

from __future__ import annotations

import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from lab.core import proc
from lab.core.errors import BlockedError, ExitCode, LabError, UsageError
from lab.documents.measured import TestReport, Tier
from lab.host import packages
from lab.workflow.session import ROOT, Reply, Session

TIERS: dict[Tier, list[str]] = {
    "unit": ["tests/unit"],
    "integration": ["tests/integration"],
    "e2e": ["tests/e2e"],
    "e2e-android": ["tests/e2e_android"],
    "e2e-nightly": ["tests/e2e_nightly"],
    "e2e-virtualbox": ["tests/e2e_virtualbox"],
    "e2e-rehearsal": ["tests/e2e_rehearsal"],
    "e2e-rehearsal-mac": ["tests/e2e_rehearsal_mac"],
    "e2e-vagrant": ["tests/e2e_vagrant"],
    "e2e-published": ["tests/e2e_published"],
    "e2e-attach": ["tests/e2e_attach"],
    "e2e-fleet": ["tests/e2e_fleet"],
    "all": ["tests/unit", "tests/integration", "tests/e2e"],
}
_NEEDED: frozenset[packages.Purpose] = frozenset(
    {"qemu", "ssh", "adb", "build-image", "rehearsal", "rehearsal-amd", "tests", "vagrant"}
)
"""What all tiers but `unit` need of the host."""
_SPREAD = {"tests/unit": "load", "tests/integration": "loadfile"}
"""Folders whose tests run on all cores at once, and how they are handed out; elsewhere VMs need all."""
_MARKS = ("failure", "error", "skipped")
_BIN = Path(sys.executable).parent
_LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def _objecting(*, to_stderr: bool) -> list[str]:
    """The linters that find something; all of them are run."""
    return [
        " ".join(words)
        for words in _LINTERS
        if proc.passthrough([_BIN / words[0], *words[1:]], cwd=ROOT, to_stderr=to_stderr)
    ]


def lint(_session: Session) -> Reply:
    """Run every linter, all of them even when one fails."""
    if objecting := _objecting(to_stderr=False):
        raise LabError(f"the linters object: {', '.join(objecting)}")
    return Reply()


def test(session: Session, tier: str) -> Reply:
    """Run a tier of tests, the linters with them, having installed what they need.

    Where the system cannot have that, what can run does, and what was left out is told.
    """
    folders, left_out = _prepared(session, tier)
    started = time.monotonic()
    objecting = _objecting(to_stderr=True)
    status, cases = 0, list[ElementTree.Element]()
    with tempfile.TemporaryDirectory() as work:
        for folder in folders:
            report = Path(work) / "junit.xml"
            status = _run(folder, report) or status
            cases += _cases(report)
    counts = _counts(cases)
    counts["failures"] += [{"test": tool, "message": "the linter objects"} for tool in objecting]
    good = status == 0 and not objecting
    failed = counts["failed"] + counts["errors"] + len(objecting)
    counts["left_out"] = left_out + counts["left_out"]
    result = TestReport(tier=tier, **counts, seconds=round(time.monotonic() - started, 3))
    lines = [f"left out: {line}" for line in counts["left_out"]]
    lines.append(f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")
    return Reply.of(result, *lines, code=ExitCode.DONE if good else ExitCode.INTERNAL)


def _prepared(session: Session, tier: str) -> tuple[list[str], list[str]]:
    """The folders of tests that can run here, having what they need; and what is left out, and why.

    Raises UsageError, and BlockedError for a tier of which none can.
    """
    if tier not in TIERS:
        raise UsageError(f"there is no tier {tier!r}", hint=f"one of {', '.join(TIERS)}")
    folders = TIERS[tier]
    if tier == "unit":
        return folders, []
    lacking = session.factories.impossible(_NEEDED)
    if not lacking:
        session.need(_NEEDED)
        return folders, []
    others = [folder for folder in folders if folder not in TIERS["unit"]]
    names = ", ".join(item.debian for item in lacking)
    why = f"{', '.join(others)}: this system cannot have what they need ({names})"
    if others == folders:
        raise BlockedError(why, hint="run them on Debian or Ubuntu; here, `--tier unit` runs")
    return TIERS["unit"], [why]


def _run(folder: str, report: Path) -> int:
    """Run the tests of a folder, on all cores where they bear that; what pytest ended with."""
    spread = ["--numprocesses=auto", f"--dist={_SPREAD[folder]}"] if folder in _SPREAD else []
    words = [f"--junit-xml={report}", "--durations=15", *spread, folder]
    return proc.passthrough([sys.executable, "-m", "pytest", *words], cwd=ROOT, to_stderr=True)


def _cases(report: Path) -> list[ElementTree.Element]:
    """The tests in pytest's report, which is taken away; a failed one where it wrote none."""
    if not report.is_file():
        case = ElementTree.Element("testcase", classname="pytest", name="report")
        ElementTree.SubElement(case, "error", message="it ended without a report")
        return [case]
    # Written by pytest a moment ago, in a folder of our own: not untrusted input.
    root = ElementTree.parse(report).getroot()  # noqa: S314
    report.unlink()
    return list(root.iter("testcase"))


def _counts(cases: list[ElementTree.Element]) -> dict[str, Any]:
    """The counts and failures of tests, as TestReport has them."""
    marks = {mark: [case for case in cases if case.find(mark) is not None] for mark in _MARKS}
    failures = [
        {"test": f"{case.get('classname')}::{case.get('name')}", "message": _message(case)}
        for case in (*marks["failure"], *marks["error"])
    ]
    counted = {
        "failed": len(marks["failure"]),
        "errors": len(marks["error"]),
        "skipped": len(marks["skipped"]),
    }
    return {
        "passed": len(cases) - sum(counted.values()),
        **counted,
        "failures": failures,
        "left_out": _left_out(marks["skipped"]),
        "report": None,
    }


def _left_out(skipped: list[ElementTree.Element]) -> list[str]:
    """The tests that were skipped, counted by their reasons."""
    reasons = Counter(" ".join(_message(case).split()) or "no reason given" for case in skipped)
    return [f"{count} tests: {reason}" for reason, count in reasons.most_common()]


def _message(case: ElementTree.Element) -> str:
    mark = next((each for each in case if each.tag in _MARKS), None)
    return (mark.get("message") or "") if mark is not None else ""

"""`invoke test`: what can run on a system runs there, and what was left out is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.core import proc
from lab.core.errors import BlockedError, ExitCode
from lab.dev import project
from lab.host import packages
from lab.host.packages import Requirement
from lab.workflow.session import Session
from tests.unit.bed import Bed, checked

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/>
<testcase classname="tests.a" name="two"><skipped message="needs Linux"/></testcase>
<testcase classname="tests.a" name="three"><skipped message="needs Linux"/></testcase>
<testcase classname="tests.a" name="four"><skipped message="no gpg here"/></testcase>
</testsuite></testsuites>
"""
ON_LINUX_ONLY = Requirement(("mmdebstrap",), "builds", "mmdebstrap", frozenset({"build-image"}))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that pytest was given."""
    folders: list[str] = []

    def passthrough(argv: Sequence[Any], **_: object) -> int:
        words = [str(word) for word in argv]
        if report := next((word for word in words if word.startswith("--junit-xml=")), ""):
            Path(report.partition("=")[2]).write_text(REPORT)
            folders.extend(word for word in words if word.startswith("tests/"))
        return 0

    monkeypatch.setattr(proc, "passthrough", passthrough)
    return folders


def _on(
    folder: Path, patch: pytest.MonkeyPatch, *impossible: packages.Requirement
) -> tuple[Session, list[object]]:
    """A session on a system that cannot have some packages; and what it asks for."""
    asked: list[object] = []
    bed = Bed(folder, patch)
    bed.use(impossible=lambda _: list(impossible), install=lambda purposes, **_: asked.append(purposes))
    return bed.session(), asked


def test_a_mac_runs_the_unit_tests_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    session, asked = _on(tmp_path, monkeypatch, ON_LINUX_ONLY)
    reply = project.test(session, "all")
    document = checked(reply)
    assert (reply.code, ran, asked) == (0, ["tests/unit"], [])
    assert document["left_out"] == [
        "tests/integration, tests/e2e: this system cannot have what they need (mmdebstrap)",
        "2 tests: needs Linux",
        "1 tests: no gpg here",
    ]
    assert reply.show
    reply.show(Console(file=(shown := io.StringIO()), width=200))
    assert "left out: 2 tests: needs Linux" in shown.getvalue()
    assert (document["passed"], document["skipped"], document["failures"]) == (1, 3, [])


@pytest.mark.parametrize("tier", ["integration", "e2e", "e2e-virtualbox", "e2e-vagrant"])
def test_a_tier_of_which_nothing_can_run_is_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str], tier: str
) -> None:
    session, asked = _on(tmp_path, monkeypatch, ON_LINUX_ONLY)
    with pytest.raises(BlockedError, match="cannot have what they need"):
        project.test(session, tier)
    assert ran == [] and asked == []


@pytest.mark.parametrize("tier", project.TIERS)
def test_where_all_can_be_had_all_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str], tier: str
) -> None:
    session, asked = _on(tmp_path, monkeypatch)
    document = checked(project.test(session, tier))
    assert ran == project.TIERS[tier]
    assert bool(asked) is (tier != "unit")
    folders = len(ran)
    assert document["left_out"] == [f"{2 * folders} tests: needs Linux", f"{folders} tests: no gpg here"]
    assert (document["passed"], document["skipped"]) == (folders, 3 * folders)


@pytest.mark.parametrize(("failing", "writes"), [("tests/unit", True), ("tests/integration", False)])
def test_a_folder_that_fails_is_not_forgotten_when_the_next_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, writes: bool
) -> None:
    def passthrough(argv: Sequence[Any], **_: object) -> int:
        failed = str(argv[-1]) == failing
        report = next((str(word) for word in argv if str(word).startswith("--junit-xml=")), "")
        if report and (writes or not failed):
            Path(report.partition("=")[2]).write_text(REPORT)
        return int(failed)

    monkeypatch.setattr(proc, "passthrough", passthrough)
    session, _ = _on(tmp_path, monkeypatch)
    reply = project.test(session, "all")
    document = checked(reply)
    assert reply.code == ExitCode.INTERNAL
    assert document["errors"] == int(not writes)
    assert [each["test"] for each in document["failures"]] == ([] if writes else ["pytest::report"])
    assert document["passed"] == (3 if writes else 2)

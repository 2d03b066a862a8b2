"""The project's own tasks: tests and linters."""

from __future__ import annotations

import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from lab import proc
from lab.commands.session import ROOT, Reply, Session
from lab.deadline import Deadline
from lab.errors import ExitCode, LabError, UsageError
from lab.host import install

TIERS = {
    "unit": ["tests/unit"],
    "integration": ["tests/integration"],
    "e2e": ["tests/e2e"],
    "all": ["tests/unit", "tests/integration", "tests/e2e"],
}
_BIN = Path(sys.executable).parent
_LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def lint(_session: Session) -> Reply:
    """Run every linter, all of them even when one fails."""
    failed = [tool for tool in _LINTERS if proc.passthrough([_BIN / tool[0], *tool[1:]], cwd=ROOT)]
    if failed:
        raise LabError(f"the linters object: {', '.join(' '.join(tool) for tool in failed)}")
    return Reply()


def test(session: Session, tier: str) -> Reply:
    """Run a tier of tests, the linters with them, having installed what they need."""
    if tier not in TIERS:
        raise UsageError(f"there is no tier {tier!r}", hint=f"one of {', '.join(TIERS)}")
    if tier != "unit":
        install.ensure(
            {"qemu", "build-image", "tests"},
            policy=session.settings.install,
            steps=session.steps,
            deadline=Deadline.after(session.settings.deadlines.docker),
            interactive=session.interactive,
            ask=session.ask,
            cache_dir=session.settings.cache_dir,
        )
    linted = all(
        proc.passthrough([_BIN / tool[0], *tool[1:]], cwd=ROOT, to_stderr=True) == 0 for tool in _LINTERS
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        status = proc.passthrough(
            [sys.executable, "-m", "pytest", f"--junit-xml={report}", "--durations=15", *TIERS[tier]],
            cwd=ROOT,
            to_stderr=True,
        )
        counts = _counts(report)
    good = linted and status == 0
    return Reply(
        document={"schema": "test/1", "tier": tier, "lint": linted, "passed": good, **counts},
        show=lambda console: console.print(
            f"{counts['tests'] - counts['failures'] - counts['errors'] - counts['skipped']} passed, "
            f"{counts['failures'] + counts['errors']} failed, {counts['skipped']} skipped"
            + ("" if linted else " (the linters object)"),
            highlight=False,
        ),
        code=ExitCode.DONE if good else ExitCode.INTERNAL,
    )


def _counts(report: Path) -> dict[str, int]:
    names = ("tests", "failures", "errors", "skipped")
    if not report.is_file():
        return dict.fromkeys(names, 0)
    # Written by pytest a moment ago, in a folder of our own: not untrusted input.
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}

"""Lines for the end of a tier's report, and a folder with what is to be looked at afterwards."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_TOLD = pytest.StashKey[list[str]]()


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the report."""
    return request.config.stash.setdefault(_TOLD, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_TOLD, [])
    for line in lines:
        terminalreporter.write_line(line)
    lines.clear()  # two tiers of one run have the same lines


def keep(told: list[str], tier: str, need: str) -> Path:
    """A folder that stays. Skips where only root on Debian could do what the tier needs (`need`)."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip(f"only root on Debian can {need}")
    folder = Path(tempfile.mkdtemp(prefix=f"lab-e2e-{tier}-"))
    told.append(f"evidence: {folder}")
    return folder

"""One emulated host for the tier, and what is printed at its end: the rungs, and where the evidence is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.config import load
from tests.e2e_virtualbox import machine, work
from tests.e2e_virtualbox.machine import EmulatedHost

_TOLD = pytest.StashKey[list[str]]()


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the report."""
    return request.config.stash.setdefault(_TOLD, [])


@pytest.fixture(scope="module")
def kept(told: list[str]) -> Path:
    """The folder for what is to be looked at afterwards; it stays."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("only root on Debian can make the emulated host's Python environment")
    folder = Path(tempfile.mkdtemp(prefix="lab-e2e-virtualbox-"))
    told.append(f"evidence: {folder}")
    return folder


@pytest.fixture(scope="module")
def host(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """The emulated host, booted, with VirtualBox's driver loaded, the project and its images."""
    cache = load().cache_dir
    image = work.host_image(cache / "images")
    folder = tmp_path_factory.mktemp("host")
    disk = folder / "work.raw"
    work.make(disk, image, work.guest_images(cache / "images"), folder, cache)
    with machine.running(folder / "run", image, disk) as made:
        try:
            yield made
        finally:
            made.keep(kept)
    disk.unlink()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_TOLD, []):
        terminalreporter.write_line(line)

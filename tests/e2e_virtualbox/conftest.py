"""One emulated host for the tier, and what is printed at its end: the rungs, and where the evidence is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.config import load
from tests.e2e.keeping import keep, pytest_terminal_summary, told  # noqa: F401 - pytest finds them here
from tests.e2e_virtualbox import machine, work
from tests.e2e_virtualbox.machine import EmulatedHost


@pytest.fixture(scope="module")
def kept(told: list[str]) -> Path:  # noqa: F811 - the fixture
    """The folder for what is to be looked at afterwards; it stays."""
    return keep(told, "virtualbox", "make the emulated host's Python environment")


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

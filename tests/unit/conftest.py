"""Fixtures that more than one file uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.core import deadline

if TYPE_CHECKING:
    from tests.unit.bed import Bed


@pytest.fixture(autouse=True, scope="session")
def quick_disk() -> Iterator[None]:
    """No write waits for the disk: no unit test pulls the plug, and a quarter of the time went there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """Commands on fakes; nothing is there yet."""
    from tests.unit.bed import Bed  # only where it is needed: it imports all commands

    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


@pytest.fixture
def ready(bed: Bed) -> Bed:
    """The same, with a lab `default` that is up."""
    from lab.tasks.lab.up import up

    assert up(bed.session(), "default").code == 0
    return bed

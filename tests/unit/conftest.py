"""Fixtures that more than one file uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.core import deadline

if TYPE_CHECKING:
    from tests.unit.bed import Bed


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

"""A lab with an emulator beside the main one, for tests of several files."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from lab.tasks.emulator import instances
from lab.workflow.session import Reply
from tests.unit.bed import Bed, checked

NAME = "default"


def _shown(reply: Reply) -> str:
    assert reply.show
    reply.show(Console(file=(written := io.StringIO()), width=200))
    return written.getvalue()


def _forwards(bed: Bed) -> dict[str, int]:
    """The forwards that are open, which must be those of the record."""
    opened = {item.name: item.host_port for item in bed.world.forwards}
    assert opened == {name: access.host_port for name, access in bed.lab().record().forwards.items()}
    return opened


def _up(bed: Bed, name: str = "second", kind: str = "docker-android") -> tuple[dict[str, Any], int]:
    reply = instances.up(bed.session(), NAME, name, kind)
    return checked(reply), reply.code

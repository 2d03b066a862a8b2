"""Snapshots, by name. VirtualBox itself accepts a name twice; the other side refuses that."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from lab.core.errors import LabError
from lab.engines.virtualbox.manage import text
from lab.engines.virtualbox.manage.talk import Talk


def snapshots(talk: Talk, uuid: str) -> list[dict[str, Any]]:
    """Name, id, time (seconds since 1970, UTC) and whether it holds memory, oldest first."""
    settings = Path(talk.describe(uuid).get("CfgFile", ""))
    try:
        return text.snapshots(settings)
    except (OSError, ElementTree.ParseError) as error:
        raise LabError(f"the VM's settings cannot be read: {error}", evidence=[settings]) from error


def take(talk: Talk, uuid: str, name: str) -> None:
    """Disk, and memory too when it runs; a running VM stands still meanwhile. No-op when there is one."""
    if not any(item["name"] == name for item in snapshots(talk, uuid)):
        talk.run(f"taking the snapshot {name}", "snapshot", uuid, "take", name)


def restore(talk: Talk, uuid: str, identity: str) -> None:
    """Make a VM that is off what it was: then it is off, or has saved memory if the snapshot had."""
    talk.run("restoring the snapshot", "snapshot", uuid, "restore", identity)

"""A machine's overlay disk, and the snapshots in it by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from lab.core.errors import UsageError
from lab.core.journal import Journal
from lab.engines import images
from lab.engines.images import QemuImg
from lab.engines.protocol import MachineSpec, Snapshot
from lab.engines.qemu.layout import QemuLayout

SUSPENDED = "lab:suspended"
"""The tag of a suspended machine's state. Users' snapshots have another prefix."""

_PREFIX = "lab:snapshot:"
_TAG_BYTES = 200


@dataclass(frozen=True)
class SavedState:
    """One internal snapshot."""

    tag: str
    created: datetime
    live: bool


def tag_of(name: str) -> str:
    """The tag of a user's snapshot: printable ASCII whatever the name, and never a bare number
    (which QEMU's tools could take for a snapshot's ID). Raises UsageError when it is too long."""
    tag = _PREFIX + quote(name, safe="")
    if not name or len(tag) > _TAG_BYTES:
        raise UsageError(f"`{name}` cannot name a snapshot", hint="use 1 to 60 letters, digits and dashes")
    return tag


def snapshots_of(saved: Iterable[SavedState]) -> list[Snapshot]:
    """The users' snapshots, oldest first."""
    named = [item for item in saved if item.tag.startswith(_PREFIX)]
    snapshots = [Snapshot(unquote(item.tag.removeprefix(_PREFIX)), item.created, item.live) for item in named]
    return sorted(snapshots, key=lambda item: (item.created, item.name))


def parse_saved(image: Mapping[str, Any]) -> list[SavedState]:
    """The snapshots in an image's description, which qemu-img and QMP write alike."""
    return [
        SavedState(
            tag=item["name"],
            created=datetime.fromtimestamp(item["date-sec"] + item.get("date-nsec", 0) / 1e9, UTC),
            live=item.get("vm-state-size", 0) > 0,
        )
        for item in image.get("snapshots", [])
    ]


def create_overlay(spec: MachineSpec, layout: QemuLayout, tool: QemuImg, journal: Journal) -> None:
    """Make the machine's disk, an overlay on its base image; one that exists on this base is kept.

    A part left by a crash is made anew. Raises BlockedError when the base is missing,
    UsageError when it does not fit or the overlay has another base.
    """
    images.must_exist(spec.base_disk)
    base, target = spec.base_disk.resolve(), layout.disk
    if target.exists():
        actual = tool.info(target, "-f", "qcow2").get("full-backing-filename", "")
        if Path(actual).resolve() != base:
            raise UsageError(
                f"this machine's disk was made on {actual or 'no image'}, not on {base}",
                hint="destroy the lab, or make it anew with --fresh",
            )
        return
    images.must_fit(spec.disk_gib, tool.size(base))
    journal.intend("file", str(target), base=str(base))
    tool.grow(base, layout.disk_part, spec.disk_gib)
    layout.disk_part.rename(target)
    journal.done("file", str(target))

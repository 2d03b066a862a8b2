"""The overlay disk and the states saved in it, through qemu-img."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.core.journal import Journal
from lab.engines.protocol import Snapshot

SUSPENDED = "lab:suspended"
"""The tag of a suspended machine's state. Users' snapshots have another prefix."""

_PREFIX = "lab:snapshot:"
_TAG_BYTES = 200
_SECONDS = 300.0


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


class QemuImg:
    """qemu-img, for images no process has open."""

    def __init__(self, tool: str = "qemu-img") -> None:
        self._tool = tool

    def info(self, path: Path) -> dict[str, Any]:
        """The image's description. Raises CommandError, for example when it is in use or broken."""
        done = self._run("info", "--output=json", "-f", "qcow2", str(path))
        described: dict[str, Any] = json.loads(done.out)
        return described

    def create_overlay(self, base: Path, target: Path, part: Path, size_gib: int, journal: Journal) -> None:
        """An overlay of `size_gib` on `base`; one that exists on this base is kept.

        A part left by a crash is made anew. Raises BlockedError when the base is missing,
        UsageError when it does not fit or the overlay has another base.
        """
        if not base.is_file():
            raise BlockedError(
                f"the base image {base} is missing",
                hint="`invoke image.list` shows the images; fetch or build it again",
            )
        base = base.resolve()
        if target.exists():
            self._check_base(target, base)
            return
        wanted = size_gib << 30
        needed = int(self.info(base)["virtual-size"])
        if wanted < needed:
            raise UsageError(
                f"a disk of {size_gib} GiB is smaller than its image ({needed / 2**30:.1f} GiB)",
                hint=f"set the disk to at least {-(-needed // 2**30)} GiB",
            )
        journal.intend("file", str(target), base=str(base))
        self._run("create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(part), str(wanted))
        part.rename(target)
        journal.done("file", str(target))

    def _check_base(self, overlay: Path, base: Path) -> None:
        actual = self.info(overlay).get("full-backing-filename", "")
        if Path(actual).resolve() != base:
            raise UsageError(
                f"this machine's disk was made on {actual or 'no image'}, not on {base}",
                hint="destroy the lab, or make it anew with --fresh",
            )

    def saved(self, path: Path) -> list[SavedState]:
        return parse_saved(self.info(path))

    def save(self, path: Path, tag: str) -> None:
        self._run("snapshot", "-c", tag, str(path))

    def apply(self, path: Path, tag: str) -> None:
        """Make the disk what it was. Its present content is lost."""
        self._run("snapshot", "-a", tag, str(path))

    def delete(self, path: Path, tag: str) -> None:
        self._run("snapshot", "-d", tag, str(path))

    def _run(self, *words: str) -> proc.Completed:
        return proc.run([self._tool, *words], deadline=Deadline.after(_SECONDS))

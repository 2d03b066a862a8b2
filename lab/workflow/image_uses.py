"""Which labs use each cached image."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from lab import emulators
from lab.core.errors import LabError
from lab.images import cache, uses
from lab.workflow.session import Session


def in_use(session: Session) -> dict[str, list[str]]:
    """Image id to the labs that stand on it, or run it as their emulator."""
    used = session.store.images_in_use()
    for image_id in uses.marked(session.images):
        for use in uses.of(session.images, image_id):
            own = use.folder.parent == session.store.labs_folder.absolute()
            name = use.lab if own else str(use.folder)
            if name not in (known := used.setdefault(image_id, [])):
                known.append(name)
    used.pop("unknown", None)
    used = {image_id: names for image_id, names in used.items() if names}
    if unknown := of_unknown_image(session, used):
        for image_id in (item.id for item in cache.entries(session.images) if item.manifest.kind == "guest"):
            used.setdefault(image_id, []).extend(unknown)

    @functools.cache
    def cached(kind: str) -> str:
        with contextlib.suppress(LabError):  # one whose package is gone, or whose image cannot be told
            return emulators.kind(kind, session.settings).cached()
        return ""

    for lab in session.store.labs():
        with contextlib.suppress(LabError):
            record = lab.read()
            kinds = {known.kind for known in record.instances.values()} if record else set()
            for image_id in filter(None, map(cached, sorted(kinds))):
                used.setdefault(image_id, []).append(lab.name)
    return used


def of_unknown_image(session: Session, used: dict[str, list[str]]) -> list[str]:
    """The labs that stand on an image and do not say on which: their record is lost or cannot be read."""
    known = {name for names in used.values() for name in names}
    unknown = []
    for lab in session.store.labs():
        try:
            record = lab.read()
        except (LabError, OSError):
            record = None
        names_it = record is not None and record.image != "unknown"  # which is what a rebuilt record says
        if not names_it and lab.name not in known and _has_vm(lab.vm_folder):
            unknown.append(f"{lab.name} (perhaps: its record cannot be read)")
    return unknown


def _has_vm(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True

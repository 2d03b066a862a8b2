"""image.prune."""

from __future__ import annotations

import time
from pathlib import Path

from lab import engines
from lab.documents.images import ImageResult
from lab.images import cache
from lab.images.cache import Manifest
from lab.tasks.image.result import replied, result
from lab.workflow.image_uses import in_use, of_unknown_image
from lab.workflow.session import Reply, Session


def prune(session: Session) -> Reply:
    """Remove what no lab stands on."""
    started = time.monotonic()
    used = in_use(session)
    whole = {entry.folder: entry.manifest for entry in cache.entries(session.images)}
    rows = []
    for item in cache.prune(session.images, set(used)):
        manifest = whole.get(item.path)  # what a killed build or download left has none
        why = "no lab uses it" if manifest else "its making was cut short"
        rows.append(_removed(item.path, item.bytes, why, manifest))
    left = {entry.id for entry in cache.entries(session.images)} | set(used)
    derived = [] if of_unknown_image(session, used) else engines.prune(session.settings.cache_dir, left)
    rows += [_removed(path, size, "the image it was converted from is gone") for path, size in derived]
    kept = [
        result(session, entry.id, "kept", f"used by {', '.join(used.get(entry.id, []))}")
        for entry in cache.entries(session.images)
    ]
    return replied("prune", rows + kept, started)


def _removed(path: Path, size: int, why: str, manifest: Manifest | None = None) -> ImageResult:
    return ImageResult(
        id=path.name,
        kind=manifest.kind if manifest else "leftover",
        name=manifest.name if manifest else path.name,
        result="removed",
        bytes=size,
        sha256=manifest.sha256 if manifest else None,
        why=why,
    )

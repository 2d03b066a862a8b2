"""What the tasks image.* answer, schema image.action/1."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.core.errors import ExitCode, LabError
from lab.documents.images import ImageAction, ImageResult
from lab.images import cache
from lab.workflow.session import Reply, Session


def result(session: Session, image_id: str, outcome: str, why: str = "") -> ImageResult:
    """The row of one image of the cache, what became of it, and why."""
    entry = cache.find(session.images, image_id)
    if entry is None:
        raise LabError(f"the image {image_id} is not in the cache it was just put in")
    return ImageResult(
        id=entry.id,
        kind=entry.manifest.kind,
        name=entry.manifest.name,
        result=outcome,
        bytes=entry.manifest.bytes,
        sha256=entry.manifest.sha256,
        why=why,
    )


def replied(
    action: str,
    rows: Sequence[ImageResult],
    started: float,
    code: int = ExitCode.DONE,
    notes: Sequence[str] = (),
) -> Reply:
    """The answer of a task that began at `started`, by the monotonic clock."""
    done = ImageAction(action=action, results=rows, seconds=round(time.monotonic() - started, 3), notes=notes)

    lines = [f"{row.result:<9} {row.id}" + (f" ({row.why})" if row.why else "") for row in rows]
    return Reply.of(done, *lines, *notes, *([] if rows else ["nothing to do"]), code=code)

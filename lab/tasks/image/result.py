"""What the tasks image.* answer, schema image.action/1."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

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

    def tell(console: Console) -> None:
        for row in rows:
            why = f" ({row.why})" if row.why else ""
            console.print(f"{row.result:<9} {row.id}{why}", markup=False, highlight=False, soft_wrap=True)
        for note in notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        if not rows:
            console.print("nothing to do", highlight=False)

    return Reply(done.as_json(), tell, code)

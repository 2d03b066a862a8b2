"""image.verify."""

from __future__ import annotations

import time

from lab.core.errors import ExitCode, LabError
from lab.images import cache
from lab.tasks.image.result import replied, result
from lab.workflow.session import Reply, Session


def verify(session: Session) -> Reply:
    """Rehash every cached image: 1 when one of them is not what it was."""
    started = time.monotonic()
    rows = []
    for entry in cache.entries(session.images):
        with session.steps.step("image.verify", entry.id):
            try:
                cache.verify(entry)
                rows.append(result(session, entry.id, "verified"))
            except LabError as error:
                rows.append(result(session, entry.id, "bad", error.what))
    bad = any(row.result == "bad" for row in rows)
    return replied("verify", rows, started, ExitCode.INTERNAL if bad else ExitCode.DONE)

"""image.export and image.import: a canary carried to a machine that cannot build it."""

from __future__ import annotations

import time

from lab.core import caller
from lab.core.errors import BlockedError, UsageError
from lab.images import canary, portable
from lab.tasks.image.result import replied, result
from lab.workflow.selection import CANARY
from lab.workflow.session import Reply, Session


def export(session: Session, image: str, file: str) -> Reply:
    """Write the cached canary of this lab's recipe into a file."""
    if image != CANARY:
        raise UsageError(f"{image} cannot be exported", hint=f"{CANARY} is what can be")
    target = caller.path(file)
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint="name the file that is to be written")
    started = time.monotonic()
    entry = canary.find(session.images)
    if entry is None:
        raise BlockedError("no canary of this lab's recipe is cached", hint="`invoke image.build canary`")
    with session.steps.step("image.export", entry.id) as step:
        portable.write(entry, target)
        step.result = f"{target}, {target.stat().st_size / 1e6:.0f} MB"
    return replied("export", [result(session, entry.id, "exported", str(target))], started)


def import_(session: Session, file: str) -> Reply:
    """Put the canary that `export` wrote into the cache."""
    path = caller.path(file)
    if not path.is_file():
        raise UsageError(
            f"{path} is not a file", hint="`invoke image.export canary FILE` makes one elsewhere"
        )
    started = time.monotonic()
    with session.steps.step("image.import", path.name) as step:
        entry, new = portable.read(path, session.images, step)
        step.result = entry.id
    return replied("import", [result(session, entry.id, "imported" if new else "cached")], started)

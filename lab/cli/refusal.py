"""What a command ends with that did not do what was asked: one LabError, whatever it was; its document."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Any

from lab import redact
from lab.errors import BlockedError, InterruptedByUser, LabError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def known(error: BaseException, *, again: str = "", folder: Path | None = None) -> LabError:
    """`error` as a person can act on it.

    `again` is what the same command would do after an interruption; `folder` is where a disk was full,
    when the error itself names no file. What nobody foresaw is a bug, said as one.
    """
    if isinstance(error, KeyboardInterrupt | InterruptedByUser):
        said = error if isinstance(error, InterruptedByUser) else InterruptedByUser("interrupted")
        said.hint = said.hint or again
        return said
    if isinstance(error, LabError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        return _full_disk(error, folder)
    return LabError(
        f"lab itself failed: {error!r}",
        tail="".join(traceback.format_exception(error)),
        hint="this is a bug in lab: please report it with the lines above",
    )


def document(error: LabError, evidence: str = "") -> dict[str, Any]:
    """lab.error/1. `evidence` is the folder of the run that was at work."""
    return {
        "schema": "lab.error/1",
        "error": {
            "what": redact.clean(error.what),
            "hint": redact.clean(error.hint),
            "evidence": [*error.evidence, *([evidence] if evidence else [])],
            "tail": redact.clean(error.tail),
            "exit_code": int(error.exit_code),
        },
    }


def _full_disk(error: OSError, folder: Path | None) -> BlockedError:
    """Blocked, and never a verdict: what was found could not be written down."""
    file = Path(str(error.filename)) if error.filename else None
    where = file.parent if file else folder
    what = f"{file.name} could not be written" if file else "something could not be written"
    return BlockedError(
        f"the disk is full{f' where {where} is' if where else ''}: {what}",
        hint="free some space (`invoke image.prune` removes unused images), or move lab's folders with "
        "LAB_STATE_DIR and LAB_CACHE_DIR; then run the same command again",
    )

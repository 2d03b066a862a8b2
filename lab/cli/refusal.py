"""What a command ends with that did not do what was asked: one LabError, whatever it was; its document."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from lab.core import redact, system
from lab.core.errors import BlockedError, InterruptedByUser, LabError


def known(error: BaseException, *, again: str = "", folders: Sequence[Path] = ()) -> LabError:
    """`error` as a person can act on it.

    `again` is what the same command would do after an interruption; `folders` are lab's own, as
    lab.core.system.explain has them. What nobody foresaw is a bug, said as one.
    """
    if isinstance(error, KeyboardInterrupt | InterruptedByUser):
        stopped = error if isinstance(error, InterruptedByUser) else InterruptedByUser("interrupted")
        stopped.hint = stopped.hint or again
        return stopped
    if isinstance(error, LabError):
        return error
    if isinstance(error, OSError) and (plain := system.explain(error, folders)):
        return plain
    if isinstance(error, psutil.AccessDenied):
        return BlockedError(
            f"process {error.pid} is another user's, and may not be looked at or ended by this one",
            hint=f"`ps -fp {error.pid}` says whose; if lab was run with sudo once, "
            f"`sudo kill {error.pid}` ends it",
        )
    return LabError(
        f"lab itself failed: {error!r}",
        tail="".join(traceback.format_exception(error)),
        hint="this is a bug in lab: please report it with the lines above",
    )


def document(error: LabError, evidence: str = "") -> dict[str, Any]:
    """lab.error/1. `evidence` is the folder of the run that was at work."""
    # Imported when something went wrong: models take their time.
    from lab.documents.host import ErrorDocument, ErrorEntry

    entry = ErrorEntry(
        what=redact.clean(error.what),
        hint=redact.clean(error.hint),
        evidence=[str(item) for item in (*error.evidence, *([evidence] if evidence else []))],
        tail=redact.clean(error.tail),
        exit_code=int(error.exit_code),
    )
    return ErrorDocument(error=entry).as_json()

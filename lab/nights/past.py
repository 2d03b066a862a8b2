"""nightly.history, and keeping it: nights that died are closed, old ones forgotten by the rule."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from lab.core import lock
from lab.core.errors import UsageError
from lab.documents.nights import HistoryEvent, NightlyHistory
from lab.history import History, Night
from lab.host import facts as host_facts
from lab.nights.showing import NAME, lock_file, show_all
from lab.workflow.session import Reply, Session


def history(session: Session, limit: int = 14) -> Reply:
    """The newest nights, newest first; all of them for a limit of 0."""
    if limit < 0:
        raise UsageError(f"--limit {limit} is less than no night", hint="0 shows all")
    with opened(session) as past:
        nights, events = past.nights(limit or -1), past.events()
    document = NightlyHistory(
        file=str(session.history_file),
        events=[HistoryEvent(at=at, text=text) for at, text in events],
        nights=[night.as_dict() for night in nights],
    )
    return Reply(document.as_json(), lambda console: show_all(console, nights, events))


def opened(session: Session) -> History:
    """The history, with no night in it that is said to run and does not."""
    found = History(session.history_file)
    try:
        dead = found.running()
        # Read before the lock is looked at: a night that runs has held it since before it was written.
        if dead and lock.holder(lock_file(session)) is None:
            _close(found, dead)
    except BaseException:
        found.close()
        raise
    return found


def close_dead(found: History, reason: str) -> list[Night]:
    """Close every night still said to run, for a caller that holds the lock; returns them."""
    return _close(found, found.running(), reason)


def prune(session: Session, found: History) -> list[Night]:
    """Forget the nights the rule no longer keeps, with their evidence."""
    settings = session.settings.nightly
    dropped = found.prune(settings.keep_days, settings.keep_nights)
    base = session.store.evidence_folder / NAME
    for night in dropped:
        for name in _folders_of(night):
            shutil.rmtree(base / name, ignore_errors=True)
    return dropped


def _close(found: History, dead: list[Night], reason: str = "") -> list[Night]:
    why = reason or "its command was killed, or crashed"
    return found.close_dead(dead, why, host_facts.read().boot_id or "")


def _folders_of(night: Night) -> set[str]:
    """The evidence folders of a night, by name: what its own list says, and what its runs name."""
    names = {Path(path).name for path in (night.evidence, *(run.evidence for run in night.runs)) if path}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        names |= set(json.loads((Path(night.evidence) / "night.json").read_text())["folders"])
    return {name for name in names if name == Path(name).name and name not in ("", ".", "..")}

"""Where a night's files are, and keeping them: dead nights are closed, old ones forgotten by the rule."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from lab.core import lock
from lab.history.model import Night
from lab.history.store import History
from lab.workflow.session import Session

NAME = "nightly"
"""The lab of a night, and its folder of evidence."""


def lock_file(session: Session) -> Path:
    """Lock held by the running night."""
    return session.settings.state_dir / "nightly.lock"


def evidence_folders(session: Session) -> set[str]:
    """The names of all evidence folders of nights and their runs."""
    base = session.store.evidence_folder / NAME
    return {path.name for path in base.iterdir() if path.is_dir()} if base.is_dir() else set()


def opened(session: Session) -> History:
    """Open the history and close nights whose process is dead. Raises HistoryError."""
    history = History(session.history_file)
    try:
        # The lock is looked at second: a night that runs has held it since before it was on record.
        if history.running() and lock.holder(lock_file(session)) is None:
            close_dead(session, history)
    except BaseException:
        history.close()
        raise
    return history


def close_dead(session: Session, history: History) -> None:
    """Close every night still said to run, for a caller who knows that none does."""
    boot_id = session.factories.host().boot_id or ""
    history.close_dead(history.running(), "its command was killed, or crashed", boot_id)


def prune(session: Session, history: History) -> None:
    """Forget the nights the rule no longer keeps (lab.history.retention), with their evidence."""
    settings = session.settings.nightly
    for night in history.prune(settings.keep_days, settings.keep_nights):
        for folder in folders(session, night):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            imported(session, night.uuid).rmdir()


def imported(session: Session, uuid: str) -> Path:
    """Where the evidence of a night of that uuid is kept that ran on another host."""
    return session.settings.state_dir / "imported" / uuid


def folders(session: Session, night: Night) -> list[Path]:
    """The evidence folders of a night and its runs that are here."""
    elsewhere = imported(session, night.uuid)
    if elsewhere.is_dir():
        return sorted(path for path in elsewhere.iterdir() if path.is_dir())
    base = session.store.evidence_folder / NAME
    return sorted(base / name for name in _folders_of(night) if (base / name).is_dir())


def _folders_of(night: Night) -> set[str]:
    """The evidence folders of a night, by name: what its own list says, and what its runs name."""
    names = {Path(path).name for path in (night.evidence, *(run.evidence for run in night.runs)) if path}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        names |= set(json.loads((Path(night.evidence) / "night.json").read_text())["folders"])
    return {name for name in names if name == Path(name).name and name not in ("", ".", "..")}

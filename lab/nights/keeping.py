"""Where a night's files are, and keeping them: dead nights are closed, old ones forgotten by the rule."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

from lab.core import lock
from lab.history.model import Night
from lab.history.store import History
from lab.workflow.session import Session

NAME = "nightly"
"""The lab of a night, and its folder of evidence."""
_LAB = re.compile(rf"{NAME}(-[1-9][0-9]{{0,5}})?")


def lock_file(session: Session) -> Path:
    """Lock held by the running night."""
    return session.settings.state_dir / "nightly.lock"


def evidence_folders(session: Session) -> set[str]:
    """All evidence folders of nights and their runs, as LAB/RUN."""
    base = session.store.evidence_folder
    return {path.relative_to(base).as_posix() for path in base.glob(f"{NAME}*/*") if _is_evidence(base, path)}


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
    base = session.store.evidence_folder
    own = {Path(path) for path in (night.evidence, *(run.evidence for run in night.runs)) if path}
    paths = {base / path.parent.name / path.name for path in own}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        listed = json.loads((Path(night.evidence) / "night.json").read_text())["folders"]
        # Of a night of before, when all of them were of one lab, they are names alone.
        paths |= {base / name if "/" in name else base / NAME / name for name in listed}
    return sorted(path for path in paths if _is_evidence(base, path))


def is_lab(name: str) -> bool:
    """Whether a lab of this name can be a night's: nightly, nightly-2 and so on (lab.nights.nightlab)."""
    return _LAB.fullmatch(name) is not None


def _is_evidence(base: Path, path: Path) -> bool:
    """Whether it is the evidence folder of a run of a night's lab, and no other place."""
    plain = path.parent.parent == base and is_lab(path.parent.name) and path.name not in ("", ".", "..")
    return plain and path.is_dir()

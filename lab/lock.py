"""Locks between processes, whose refusal names the holder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.errors import BusyError
from lab.files import private_folder, read_json, write_json


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: process id, host, the command's verb, and since when (UTC)."""

    pid: int
    host: str
    verb: str
    since: str


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def holder(path: Path) -> Holder | None:
    """The process that holds the lock at `path` now, or None."""
    probe = FileLock(path)
    if not path.exists():
        return None
    try:
        with probe.acquire(blocking=False):
            return None
    except Timeout:
        facts = read_json(_note(path))
        return Holder(**facts) if facts else Holder(0, "", "unknown", "")


@contextlib.contextmanager
def hold(path: Path, verb: str, what: str) -> Iterator[None]:
    """Hold the lock at `path`, or raise BusyError naming who does.

    The kernel drops it when this process dies, however that happens.
    """
    if not path.parent.exists():
        private_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder(path)
        by = f"`{who.verb}` (pid {who.pid}, since {who.since})" if who and who.pid else "another command"
        raise BusyError(
            f"{what} is held by {by}", hint="wait for it to end, or interrupt it; then run this again"
        ) from None
    try:
        me = Holder(os.getpid(), socket.gethostname(), verb, datetime.now(UTC).isoformat(timespec="seconds"))
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its note
            write_json(_note(path), asdict(me))
        yield
    finally:
        _note(path).unlink(missing_ok=True)
        lock.release()

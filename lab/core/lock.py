"""Locks between processes: one that is taken is refused or waited for, by the name of who holds it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil
from filelock import lock_descriptor
from pydantic import TypeAdapter

from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BusyError, DeadlineError
from lab.core.files import PRIVATE, PUBLIC, private_folder, read_object, write_json

_LONGEST_SECONDS = 3600.0

_START_TOLERANCE = 2.0
"""Tolerance in seconds when comparing start times: they are computed from the boot time, which moves when the
clock is adjusted."""
_TRY_SECONDS = 0.5
"""How long a lock that nobody says to hold is tried for: who asks about it has it for an instant."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: process id, host, the command's verb or its work, since when (UTC), its start."""

    pid: int
    host: str
    verb: str
    since: str
    started: float = 0.0
    """Unix time; 0 in notes of older versions."""

    def lives(self) -> bool:
        """Whether that very process runs, on this host."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            began = process.create_time()
            if process.status() == psutil.STATUS_ZOMBIE:  # its parent did not look yet; it holds nothing
                return False
        except (psutil.Error, ValueError, OverflowError):
            return False
        return not self.started or abs(began - self.started) <= _START_TOLERANCE


_HOLDER = TypeAdapter(Holder)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _noted(path: Path) -> Holder | None:
    """Who wrote the note beside the lock last; None when there is none that can be read."""
    try:
        return _HOLDER.validate_python(read_object(_note(path)))
    except (OSError, ValueError):
        return None


def holder(path: Path) -> Holder | None:
    """The process that holds the lock at `path` now, or None. Pid 0: one that is not known.

    Its note says so. Only where that names nobody who lives is the lock itself asked, by sharing it for
    an instant; `hold` tries for longer than that, so no command is refused for being asked about.
    """
    noted = _noted(path)
    if noted and noted.lives():
        return noted
    if not _is_held(path):
        return None
    noted = _noted(path)  # it may have begun just now
    elsewhere = noted is not None and noted.host != socket.gethostname()
    return noted if noted and (noted.lives() or elsewhere) else Holder(0, "", "unknown", "")


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as probe:
            return not lock_descriptor(probe.fileno(), blocking=False)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def hold(path: Path, verb: str, what: str, *, make: bool = True) -> Iterator[None]:
    """Hold the lock at `path`, or raise BusyError naming who does.

    The kernel drops it when this process dies, however that happens. `make` has its folder made when it is
    missing; without, FileNotFoundError says that the folder is gone, and it stays so, even if it went
    while this command was about to take the lock.
    """
    if make and not path.parent.exists():
        private_folder(path.parent)
    with path.open("ab") as opened:
        _take(opened.fileno(), path, what)
        if not _is_at(path, opened):
            raise FileNotFoundError(f"{path} was replaced while it was waited for")
        with _signed(path, verb):
            yield


@contextlib.contextmanager
def when_free(
    path: Path,
    what: str,
    *,
    say: Callable[[str], None] | None = None,
    deadline: Deadline | None = None,
) -> Iterator[None]:
    """Hold the lock at `path`, waiting for who holds it; `what` names the work for whoever has to wait then.

    That there is a wait, and for whom, is said once through `say`. No file is left behind. Raises BusyError
    naming the holder when `deadline` (an hour by default) passes first, InterruptedByUser when cancelled.
    """
    deadline = deadline or Deadline.after(_LONGEST_SECONDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    reported: list[str] = []

    def attempt() -> IO[bytes] | None:
        with contextlib.ExitStack() as closing:
            opened = closing.enter_context(path.open("ab"))
            if not lock_descriptor(opened.fileno(), blocking=False):
                who = _worker(path)
                if say and not reported:
                    say(f"waiting for {who}")
                    reported.append(who)
                raise NotYet(who)
            if not _is_at(path, opened):
                return None
            closing.pop_all()
            return opened

    try:
        opened = poll(attempt, deadline, f"the lock for {what}")
    except DeadlineError as error:
        raise BusyError(
            f"{_worker(path)} holds the lock for {what}, and did not release it in {deadline.seconds:.0f} s",
            hint="wait for it to end, or end it",
            evidence=[path],
        ) from error
    with opened:
        try:
            with _signed(path, what, PUBLIC):
                yield
        finally:
            # Removed while still held: a waiter that opened the old file finds it nameless and tries again.
            path.unlink(missing_ok=True)


def beside(target: Path) -> Path:
    """The lock file of one target file."""
    return target.with_name(target.name + ".lock")


def _is_at(path: Path, opened: IO[bytes]) -> bool:
    """Whether this open file is the one at `path`: one that was removed or replaced protects nothing."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _signed(path: Path, verb: str, mode: int = PRIVATE) -> Iterator[None]:
    """Have the note beside the lock say for the block that this process holds it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    me = Holder(os.getpid(), socket.gethostname(), verb, since, psutil.Process().create_time())
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its note
            write_json(_note(path), asdict(me), mode)
        yield
    finally:
        with contextlib.suppress(OSError):
            _note(path).unlink(missing_ok=True)


def _worker(path: Path) -> str:
    """Who holds a lock that is waited for, in words."""
    who = _noted(path)
    known = who is not None and who.lives()
    return f"process {who.pid} ({who.verb}, since {who.since})" if who and known else "another process"


def _take(descriptor: int, path: Path, what: str) -> None:
    """Lock an open file, until it is closed. Raises BusyError."""
    end = time.monotonic() + _TRY_SECONDS
    while not lock_descriptor(descriptor, blocking=False):
        who = _noted(path)
        known = who is not None and who.lives()
        if known or time.monotonic() >= end:
            by = f"`{who.verb}` (pid {who.pid}, since {who.since})" if who and known else "another command"
            raise BusyError(
                f"{what} is held by {by}", hint="wait for it to end, or interrupt it; then run this again"
            )
        time.sleep(0.01)

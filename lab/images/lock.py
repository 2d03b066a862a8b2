"""File locks that say who holds them and leave no file behind."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.deadline import Deadline, NotYet, poll
from lab.errors import BusyError, DeadlineError

_LONGEST_SECONDS = 3600.0


@contextlib.contextmanager
def held(
    path: Path,
    what: str,
    *,
    say: Callable[[str], None] | None = None,
    deadline: Deadline | None = None,
) -> Iterator[None]:
    """Hold the lock file `path` for the block; `what` names the work for whoever has to wait.

    While another process (or thread) holds it, this waits and says so once through `say`.
    The kernel frees the lock of a process that dies. Raises BusyError naming the holder when
    `deadline` (an hour by default) passes first, InterruptedByUser when cancelled.
    """
    deadline = deadline or Deadline.after(_LONGEST_SECONDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    told = False

    def attempt() -> bool:
        nonlocal told
        try:
            lock.acquire(blocking=False)
        except Timeout:
            who = holder(path)
            if say and not told:
                say(f"waiting for {who}")
                told = True
            raise NotYet(who) from None
        return True

    try:
        poll(attempt, deadline, f"the lock for {what}")
    except DeadlineError as error:
        raise BusyError(
            f"{holder(path)} holds the lock for {what}, and did not release it in {deadline.seconds:.0f} s",
            hint="wait for it to end, or end it",
            evidence=[path],
        ) from error
    try:
        path.write_text(json.dumps({"pid": os.getpid(), "what": what, "since": _now()}))
        yield
    finally:
        # Removed while still held: a waiter that opened the old file finds it nameless and tries again.
        path.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str:
    """Who holds the lock file, in words."""
    try:
        facts = json.loads(path.read_text())
        return f"process {int(facts['pid'])} ({facts['what']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def beside(target: Path) -> Path:
    """The lock file of one target file."""
    return target.with_name(target.name + ".lock")


def _now() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S UTC")

"""L1's clock: it stands still while L1 is suspended, and may be wrong from the start."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.guest.ssh import Guest

_TOLERANCE_SECONDS = 60.0
"""What an answer over SSH may take on a slow processor."""


def set_now(guest: Guest, deadline: Deadline | None = None) -> None:
    """Set it to this machine's time."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    guest.run(["date", "--utc", "--set", now], sudo=True, deadline=deadline)


def correct(guest: Guest, deadline: Deadline | None = None) -> str:
    """Set it where it differs from this machine's by a minute or more; in words, what was done.

    Empty when the two agree. Raises LabError when the VM does not tell its time.
    """
    answer = guest.run(["date", "+%s"], deadline=deadline).out.strip()
    if not answer.isdecimal():
        raise LabError("`date +%s` in the VM does not tell its time", tail=answer[:200])
    ahead = int(answer) - time.time()
    if abs(ahead) < _TOLERANCE_SECONDS:
        return ""
    set_now(guest, deadline)
    was = datetime.fromtimestamp(min(int(answer), _LATEST), UTC).strftime("%Y-%m-%d %H:%M:%S")
    direction = "ahead of" if ahead > 0 else "behind"
    return f"the VM's clock said {was} UTC, {_long(abs(ahead))} {direction} this machine's: it was set"


_LATEST = 253402300799
"""The last second of the year 9999: Python has no later one."""


def _long(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"

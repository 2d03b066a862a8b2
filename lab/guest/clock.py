"""L1's clock, which stands still while L1 is suspended."""

from __future__ import annotations

from datetime import UTC, datetime

from lab.deadline import Deadline
from lab.guest.ssh import Guest


def set_now(guest: Guest, deadline: Deadline | None = None) -> None:
    """Set it to this machine's time."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    guest.run(["date", "--utc", "--set", now], sudo=True, deadline=deadline)

"""Having the system run a task every night: launchd, systemd."""

from __future__ import annotations

import platform

from lab.core.errors import BlockedError
from lab.schedule.installing import install, installed, uninstall
from lab.schedule.launchd import Launchd
from lab.schedule.plan import MARKER, Plan, Scheduler, parse_at
from lab.schedule.systemd import Systemd

BY_SYSTEM: dict[str, type[Scheduler]] = {"Darwin": Launchd, "Linux": Systemd}


def scheduler(system: str = "") -> Scheduler:
    """What schedules on this system, or on the one `platform.system()` would call `system`."""
    name = system or platform.system()
    if name not in BY_SYSTEM:
        raise BlockedError(
            f"lab knows no scheduler of {name}", hint="have `bin/invoke nightly.run` run by cron"
        )
    return BY_SYSTEM[name]()


__all__ = [
    "MARKER",
    "Launchd",
    "Plan",
    "Scheduler",
    "Systemd",
    "install",
    "installed",
    "parse_at",
    "scheduler",
    "uninstall",
]

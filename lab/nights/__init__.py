"""nightly.*: a whole validation, unattended, recorded whichever way it ends."""

from lab.nights.night import run
from lab.nights.past import history
from lab.nights.timetable import install, status, uninstall

__all__ = ["history", "install", "run", "status", "uninstall"]

"""nightly.*: a whole validation, unattended, recorded whichever way it ends."""

from lab.commands.nightly.night import run
from lab.commands.nightly.past import history
from lab.commands.nightly.timetable import install, status, uninstall

__all__ = ["history", "install", "run", "status", "uninstall"]

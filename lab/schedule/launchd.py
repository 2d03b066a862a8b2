"""macOS: an agent of the user's launchd. Keys are those of launchd.plist(5)."""

from __future__ import annotations

import os
import plistlib
from pathlib import Path

from lab.schedule.plan import MARKER, Plan, Scheduler, Unit

LABEL = "io.lab.nightly"
_GUARDED = ("Documents", "Desktop", "Downloads", "Library/Mobile Documents")
"""Folders of the home that macOS keeps programs from which nobody at the screen allowed it: an agent that
is to run one in there ends with 126, "Operation not permitted" (smith-horn/skillsmith#1009)."""


class Launchd(Scheduler):
    """A night the Mac sleeps through is run when it wakes; caffeinate keeps it awake meanwhile."""

    name = "launchd"
    tool = "launchctl"
    absent = frozenset({112, 113, 125})
    """`launchctl error N`: no such domain, no such service, and what a domain answers while nobody is
    logged in. Without the domain nothing runs, and at the next log-in it reads what files there are."""
    remedy = (
        "move the checkout, or that folder, elsewhere in your home (~/lab), then run this again from there"
    )

    def units(self, plan: Plan) -> list[Unit]:
        document = {
            "Label": LABEL,
            "ProgramArguments": ["/usr/bin/caffeinate", "-i", "-s", *plan.program],
            "WorkingDirectory": str(plan.folder),
            "EnvironmentVariables": dict(plan.environment),
            "StartCalendarInterval": {"Hour": plan.hour, "Minute": plan.minute},
            "StandardOutPath": str(plan.log),
            "StandardErrorPath": str(plan.log),
            # lab ends itself on SIGTERM, and needs a while to leave nothing behind.
            "ExitTimeOut": 120,
            "ProcessType": "Standard",
            "RunAtLoad": False,
        }
        text = plistlib.dumps(document, sort_keys=False).decode()
        head, rest = text.split("<plist", 1)
        return [Unit(self.paths()[0], f"{head}<!-- {MARKER} -->\n<plist{rest}".encode())]

    def paths(self) -> list[Path]:
        return [Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"]

    def activate(self) -> list[list[str]]:
        return [["launchctl", "bootstrap", _domain(), str(self.paths()[0])]]

    def deactivate(self) -> list[list[str]]:
        return [["launchctl", "bootout", f"{_domain()}/{LABEL}"]]

    def query(self) -> list[str]:
        return ["launchctl", "print", f"{_domain()}/{LABEL}"]

    def hindrance(self, plan: Plan) -> str:
        kept = [value for name, value in plan.environment.items() if name != "PATH"]
        for path in (plan.folder, plan.log, *map(Path, kept)):
            if guarded := _guarded(path):
                return f"macOS does not let launchd into {guarded}, where {path} is (it would end with 126)"
        return ""

    def advice(self) -> str:
        return (
            "it runs while you are logged in; the log-in keychain must be unlocked for its secrets. For "
            "a mail server or webhook of your own network, macOS may have to be told: System Settings, "
            "Privacy & Security, Local Network"
        )


def _guarded(path: Path) -> Path | None:
    """The folder among _GUARDED that holds it; upper and lower case are one on a Mac's disk."""
    parts = _folded(path)
    folders = (Path.home() / name for name in _GUARDED)
    return next((folder for folder in folders if parts[: len(own := _folded(folder))] == own), None)


def _folded(path: Path) -> list[str]:
    return [part.casefold() for part in path.resolve().parts]


def _domain() -> str:
    return f"gui/{os.getuid()}"

"""A program that starts with the machine and is started again when it ends: a host's part in a fleet."""

from __future__ import annotations

import os
import platform
import plistlib
from pathlib import Path

from lab.core.errors import BlockedError
from lab.schedule.launchd import Launchd
from lab.schedule.plan import SERVICE_MARKER, Plan, Scheduler, Unit
from lab.schedule.systemd import Systemd, quoted_command, quoted_variables

NAME, LABEL = "lab-fleet", "io.lab.fleet"
_AGAIN_SECONDS = 30
_END_SECONDS = 180
"""What a night that is ended needs to leave nothing behind, and a little more."""


class SystemdService(Systemd):
    """A service of the user's systemd."""

    def units(self, plan: Plan) -> list[Unit]:
        text = (
            f"# {SERVICE_MARKER}\n"
            "[Unit]\n"
            "Description=lab: a host of a fleet\n"
            "\n"
            "[Service]\n"
            f"{quoted_command(plan)}"
            f"{quoted_variables(plan)}"
            "EnvironmentFile=-%h/.config/lab/nightly.env\n"
            "Restart=always\n"
            f"RestartSec={_AGAIN_SECONDS}\n"
            f"TimeoutStopSec={_END_SECONDS}\n"
            "KillMode=mixed\n"
            "\n"
            "[Install]\n"
            "WantedBy=default.target\n"
        )
        return [Unit(self.paths()[0], text.encode())]

    def paths(self) -> list[Path]:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return [base / "systemd" / "user" / f"{NAME}.service"]

    def activate(self) -> list[list[str]]:
        return [
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "enable", "--now", f"{NAME}.service"],
        ]

    def deactivate(self) -> list[list[str]]:
        return [["systemctl", "--user", word, f"{NAME}.service"] for word in ("stop", "disable")]

    def query(self) -> list[str]:
        return ["systemctl", "--user", "status", "--no-pager", f"{NAME}.service"]

    def advice(self) -> str:
        return "it runs while you are logged in; `loginctl enable-linger` has it start with the machine"


class LaunchdService(Launchd):
    """An agent that launchd keeps alive; caffeinate keeps the Mac awake for its nights."""

    def units(self, plan: Plan) -> list[Unit]:
        document = {
            "Label": LABEL,
            "ProgramArguments": ["/usr/bin/caffeinate", "-i", "-s", *plan.program],
            "WorkingDirectory": str(plan.folder),
            "EnvironmentVariables": dict(plan.environment),
            "StandardOutPath": str(plan.log),
            "StandardErrorPath": str(plan.log),
            "ExitTimeOut": _END_SECONDS,
            "ThrottleInterval": _AGAIN_SECONDS,
            "ProcessType": "Standard",
            "RunAtLoad": True,
            "KeepAlive": True,
        }
        head, rest = plistlib.dumps(document, sort_keys=False).decode().split("<plist", 1)
        return [Unit(self.paths()[0], f"{head}<!-- {SERVICE_MARKER} -->\n<plist{rest}".encode())]

    def paths(self) -> list[Path]:
        return [Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"]

    def activate(self) -> list[list[str]]:
        return [["launchctl", "bootstrap", f"gui/{os.getuid()}", str(self.paths()[0])]]

    def deactivate(self) -> list[list[str]]:
        return [["launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}"]]

    def query(self) -> list[str]:
        return ["launchctl", "print", f"gui/{os.getuid()}/{LABEL}"]

    def advice(self) -> str:
        return "it starts when you log in, and keeps this Mac awake on mains power"


BY_SYSTEM: dict[str, type[Scheduler]] = {"Darwin": LaunchdService, "Linux": SystemdService}


def service(system: str = "") -> Scheduler:
    """What keeps a program running on `system`, or on this one. Raises BlockedError where nothing does."""
    name = system or platform.system()
    if name not in BY_SYSTEM:
        raise BlockedError(
            f"lab knows nothing that keeps a program running on {name}",
            hint="have `bin/invoke fleet.work` run by what starts programs there",
        )
    return BY_SYSTEM[name]()

"""Linux: a timer and a service of the user's systemd (systemd.timer(5), systemd.service(5))."""

from __future__ import annotations

import os
from pathlib import Path

from lab.schedule.plan import MARKER, Plan, Scheduler, Unit

NAME = "lab-nightly"


class Systemd(Scheduler):
    """A night the machine was off is run when it is on again (Persistent)."""

    name = "systemd"
    tool = "systemctl"
    absent = frozenset({3, 4})
    """systemctl(1), exit status: not running; no such unit. 1 is also what it says without a bus."""

    def units(self, plan: Plan) -> list[Unit]:
        service = (
            f"# {MARKER}\n"
            "[Unit]\n"
            "Description=lab: the night's validation\n"
            "\n"
            "[Service]\n"
            "Type=oneshot\n"
            f"{quoted_command(plan)}"
            f"{quoted_variables(plan)}"
            "# Secrets, if the keyring cannot hold them: a file of your own, mode 0600.\n"
            "EnvironmentFile=-%h/.config/lab/nightly.env\n"
            f"TimeoutStartSec={plan.minutes}min\n"
            "TimeoutStopSec=2min\n"
            "KillMode=mixed\n"
        )
        timer = (
            f"# {MARKER}\n"
            "[Unit]\n"
            "Description=lab: every night\n"
            "\n"
            "[Timer]\n"
            f"OnCalendar=*-*-* {plan.hour:02}:{plan.minute:02}:00\n"
            "Persistent=true\n"
            "\n"
            "[Install]\n"
            "WantedBy=timers.target\n"
        )
        service_path, other = self.paths()
        return [Unit(service_path, service.encode()), Unit(other, timer.encode())]

    def paths(self) -> list[Path]:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return [base / "systemd" / "user" / f"{NAME}.{kind}" for kind in ("service", "timer")]

    def activate(self) -> list[list[str]]:
        return [
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "enable", "--now", f"{NAME}.timer"],
        ]

    def deactivate(self) -> list[list[str]]:
        # `disable --now` stops nothing when the file is gone already.
        return [["systemctl", "--user", word, f"{NAME}.timer"] for word in ("stop", "disable")]

    def after_removal(self) -> list[list[str]]:
        return [["systemctl", "--user", "daemon-reload"]]

    def query(self) -> list[str]:
        return ["systemctl", "--user", "status", "--no-pager", f"{NAME}.timer"]

    def advice(self) -> str:
        return "it runs while you are logged in; `loginctl enable-linger` has it run always"


def quoted_command(plan: Plan) -> str:
    """The lines that say what is run, and where."""
    words = " ".join([_quoted(plan.program[0]), *map(_argument, plan.program[1:])])
    return f"WorkingDirectory={_escaped(str(plan.folder))}\nExecStart={words}\n"


def quoted_variables(plan: Plan) -> str:
    """The lines with its variables."""
    lines = (f"Environment={_quoted(f'{name}={value}')}\n" for name, value in plan.environment.items())
    return "".join(lines)


def _escaped(text: str) -> str:
    """`%` is systemd's own character."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """A program or an assignment: systemd expands `%` inside quotes, too."""
    safe = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{safe}"'


def _argument(text: str) -> str:
    """A word after the program: there, and there alone, systemd expands `$` as well."""
    return _quoted(text).replace("$", "$$")

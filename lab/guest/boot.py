"""The end of L1's boot, as its own service manager sees it."""

from __future__ import annotations

from lab.core.deadline import Deadline, NotYet, poll
from lab.guest.ssh import Guest

_LOOK_SECONDS = 20
_BOOTING = ("", "initializing", "starting", "offline", "unknown")
# It is left to wait: asking anew each second takes a slow processor from the very boot that is waited for.
_LOOK = """
timeout "$1" systemctl is-system-running --wait >/dev/null 2>&1
systemctl is-system-running
systemctl list-jobs --no-legend --plain | while read -r number unit more; do echo "$unit"; done |
    xargs -r systemctl show --property=Id,TriggeredBy
"""


def wait_until_over(guest: Guest, deadline: Deadline) -> str:
    """`running` or `degraded`, or `running but for` and the units that the boot does not need.

    A login may come before drivers are loaded: a look too early would take a /dev/kvm that is
    about to appear for one that never will. Raises DeadlineError. Of a machine that is somebody's it is only
    asked: what its service manager says, or `running` where it has none.
    """
    if guest.terms.somebodys:
        return guest.run(["systemctl", "is-system-running"], check=False).out.strip() or "running"

    def state() -> str:
        seconds = max(1, min(_LOOK_SECONDS, int(deadline.left / 2)))
        # As root: asked that way it answers before the message bus runs.
        words = ["sh", "-c", _LOOK, "look", str(seconds)]
        asked = guest.run(words, sudo=True, check=False, deadline=deadline)
        system, _, shown = asked.out.partition("\n")
        if system not in _BOOTING:
            return system
        booting, beside = _sorted(shown)
        if system == "starting" and beside and not booting:
            return f"running but for {', '.join(beside)}"
        waited = f", and waits for {', '.join(booting[:3])}" if booting else ""
        raise NotYet(f"the system is {system or asked.err.strip()}{waited}")

    return poll(state, deadline, "the end of the VM's boot", hint="`invoke lab.logs` shows its console")


def _sorted(shown: str) -> tuple[list[str], list[str]]:
    """The units with a job in `systemctl show`'s words: those of the boot, and those that timers started.

    A timer that is overdue starts its unit while the system boots, and systemd calls the boot unfinished
    until that ends: half an hour of unattended upgrades, on a slow processor.
    """
    booting: list[str] = []
    beside: list[str] = []
    for block in shown.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        by = fields.get("TriggeredBy", "").split()
        if name := fields.get("Id"):
            (beside if any(unit.endswith(".timer") for unit in by) else booting).append(name)
    return booting, beside

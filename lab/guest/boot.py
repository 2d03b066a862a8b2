"""The end of L1's boot, as its own service manager sees it."""

from __future__ import annotations

from lab.deadline import Deadline, NotYet, poll
from lab.guest.ssh import Guest

_LOOK_SECONDS = 20
_BOOTING = ("", "initializing", "starting", "offline", "unknown")


def wait_until_over(guest: Guest, deadline: Deadline) -> str:
    """`running` or `degraded`, once it is one of them. Raises DeadlineError.

    A login may come before drivers are loaded: a look too early would take a /dev/kvm that is
    about to appear for one that never will.
    """

    def state() -> str:
        # As root: asked that way it answers before the message bus runs. And it is left to wait: asking
        # anew each second takes a slow processor from the very boot that is waited for.
        words = ["timeout", str(_LOOK_SECONDS), "systemctl", "is-system-running", "--wait"]
        asked = guest.run(words, sudo=True, check=False, deadline=deadline)
        found = asked.out.strip()
        if found in _BOOTING:
            raise NotYet(f"the system is {found or asked.err.strip()}")
        return found

    return poll(state, deadline, "the end of the VM's boot", hint="`invoke lab.logs` shows its console")

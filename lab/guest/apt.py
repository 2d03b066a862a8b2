"""Installing packages in L1 with apt: progress as it comes, locks waited for, failures explained."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.deadline import Deadline, pause
from lab.errors import BlockedError, CommandError, LabError
from lab.guest.ssh import Guest
from lab.steps import Step

_ENVIRONMENT = [
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_SUSPEND=1",
    "APT_LISTCHANGES_FRONTEND=none",
]
_OPTIONS = [
    *("-o", "Acquire::Retries=3"),
    *("-o", "Acquire::Languages=none"),
    *("-o", "Dpkg::Use-Pty=0"),
]
_INSTALL_OPTIONS = [
    "--yes",
    "--no-install-recommends",
    *("-o", "DPkg::Lock::Timeout=600"),
    *("-o", "Dpkg::Options::=--force-unsafe-io"),
    *("-o", "Dpkg::Options::=--force-confold"),
    *("-o", "APT::Status-Fd=1"),
]
_LOCK_SECONDS = 5.0

_STATUS = re.compile(r"^(dl|pm)status:([^:]*):([\d.]+):(.*)$")
_LOCKED = re.compile(r"Could not get lock|Unable to lock", re.IGNORECASE)
_BROKEN_OFF = "dpkg --configure -a"

_FAILURES: list[tuple[str, type[LabError], str, str]] = [
    (
        r"No space left on device|don't have enough free space",
        BlockedError,
        "the VM's disk is full",
        "give the lab a larger disk (disk_gib), then `invoke lab.up --fresh`",
    ),
    (
        r"Temporary failure resolving|Could not resolve|Could not connect|Connection timed out|"
        r"Network is unreachable|Failed to fetch|Unable to connect",
        BlockedError,
        "the VM cannot reach its package sources",
        "check the host's network and proxy; lab's Debian image carries Docker's packages with it",
    ),
    (
        r"Unable to locate package|no installation candidate|NO_PUBKEY|is not signed|Valid-Until",
        BlockedError,
        "the VM's package sources do not offer what is needed",
        "another image, or another Docker package, may: see `invoke lab.config`",
    ),
]


def update(guest: Guest, step: Step, deadline: Deadline) -> None:
    """Fetch the package lists. Raises BlockedError when the sources cannot be reached."""
    _apt(guest, ["apt-get", *_OPTIONS, "-o", "APT::Update::Error-Mode=any", "update"], step, deadline)


def install(
    guest: Guest, packages: Sequence[str], step: Step, deadline: Deadline, *, offline: bool = False
) -> None:
    """Install `packages` without what they merely recommend; `offline` uses what is there already.

    Raises BlockedError or LabError saying why, with apt's last lines; DeadlineError.
    """
    more = ["--no-download"] if offline else []
    _apt(guest, ["apt-get", *_OPTIONS, *_INSTALL_OPTIONS, *more, "install", *packages], step, deadline)


def _apt(guest: Guest, argv: list[str], step: Step, deadline: Deadline) -> None:
    told = _Teller(step)
    repaired = False
    while True:
        try:
            guest.run([*_ENVIRONMENT, *argv], sudo=True, deadline=deadline, on_line=told)
            return
        except CommandError as error:
            if _LOCKED.search(error.tail) and not deadline.passed:
                step.note("another package manager is at work in the VM: waiting for it")
                pause(min(_LOCK_SECONDS, deadline.left))
            elif _BROKEN_OFF in error.tail and not repaired:
                repaired = True
                step.note("an installation was broken off earlier: finishing it")
                guest.run([*_ENVIRONMENT, *_BROKEN_OFF.split()], sudo=True, deadline=deadline, on_line=told)
            else:
                raise explained(error) from error


def explained(error: CommandError) -> LabError:
    """A failed apt command as the fault it shows."""
    for pattern, kind, what, hint in _FAILURES:
        if re.search(pattern, error.tail):
            return kind(what, hint=hint, tail=error.tail)
    words = [word for word in error.argv if word.startswith("apt") or word == "dpkg"]
    return LabError(
        f"{words[0] if words else error.argv[0]} failed in the VM with status {error.status}",
        hint="`invoke lab.ssh` and look at /var/log/apt/term.log",
        tail=error.tail,
    )


class _Teller:
    """Turns apt's status lines into a step's progress, in percent: fetching, then unpacking."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self, line: str) -> None:
        if found := _STATUS.match(line):
            kind, _, percent, text = found.groups()
            half = 0.0 if kind == "dl" else 50.0
            self._step.progress(half + float(percent) / 2, 100, text)
        elif line.startswith(("Get:", "Err:")):
            self._step.progress(0, None, line)

"""Installing packages in L1 with apt: progress, locks waited for, a wrong clock set, failures explained."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.core.deadline import Deadline, pause
from lab.core.errors import CommandError, LabError, Symptom, diagnose
from lab.core.steps import Step
from lab.guest import clock
from lab.guest.ssh import Guest
from lab.host import aptwords

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
_CLOCK = re.compile(
    r"is not valid yet|is expired \(invalid since|Valid-Until|not yet valid|not yet activated|"
    r"uses expired certificate|certificate (?:has|is) expired|Not live until|time warp or clock problem|"
    r"EXP(?:KEY)?SIG "
)
"""What is fetched is not of the VM's time: of apt itself, of what checks signatures for it, and of TLS."""

_SYMPTOMS = [
    Symptom(
        r"No space left on device|don't have enough free space|Disk quota exceeded",
        "the VM's disk is full",
        "give the lab a larger disk (disk_gib), then `invoke lab.up --fresh`",
    ),
    Symptom(
        r"Read-only file system",
        "the VM's disk can only be read: its kernel found it damaged, or it was mounted so",
        "`invoke lab.logs` shows the kernel's reason; `invoke lab.up --fresh` makes a new disk",
    ),
    Symptom(
        aptwords.LOCKED.pattern,
        "another package manager is at work in the VM, and did not end in time",
        "`invoke lab.ssh`, then `ps aux` shows it; try again when it is done",
    ),
    Symptom(
        _CLOCK.pattern,
        "by the VM's clock, which says the same as this machine's, its package sources are not valid now",
        "is this machine's clock right? Sources that are not kept up any more expire: another image may do",
    ),
    Symptom(
        r"(?:does not have|no longer has) a Release file",
        "a package source of the VM has nothing for its release",
        "another image, or another Docker package (docker.package), may do; the source is named below",
    ),
    Symptom(
        r"Hash Sum mismatch|unexpected size|Mirror sync in progress|Splitting up .* failed|"
        r"Clearsigned file isn't valid|invalid reply header|Bad header (?:line|data)|Data left in file|"
        r"Writing more data than expected|Unable to parse package file|Encountered a section with no Package|"
        r"[Cc]orrupted archive|data is corrupt|not a Debian format archive",
        "the VM's package sources answer, and what they give is not what they promise",
        "a mirror in the middle of its update, or a proxy or a portal on the way that changes what is "
        "fetched: try again later, or on another network",
    ),
    Symptom(
        r"\b407  [A-Z]|Proxy Authentication Required",
        "a proxy between the VM and its package sources wants a login",
        "check the host's network and proxy",
    ),
    Symptom(
        r"[Cc]ertificate verif|certificate is NOT trusted|SSL certificate problem",
        "the VM does not trust the certificate of its package sources",
        "a proxy on the way may put in its own: check the host's network",
    ),
    Symptom(
        r"\b(?:404|410)  [A-Z]",
        "the VM's package sources answer, and do not have what their lists name",
        "the lists may be old, or the release is not kept up any more: try again, or use another image",
    ),
    Symptom(
        r"\b(?:401|403|429|5\d\d)  [A-Z]",
        "the VM's package sources answer, and refuse",
        "it is their server's or a proxy's doing: try again later",
    ),
    Symptom(
        r"Temporary failure resolving|Could not resolve|wicked happened resolving|System error resolving|"
        r"Could not connect|Connection (?:timed out|refused|failed|reset)|connection timed out|"
        r"No route to host|Network is unreachable|Cannot initiate the connection|Unable to connect|"
        r"Failed to connect|Error reading from server|Remote end closed|Read error|Undetermined Error",
        "the VM cannot reach its package sources",
        "check the host's network and proxy; lab's Debian image carries Docker's packages with it",
    ),
    Symptom(
        r"NO_PUBKEY|is not signed|BADSIG|signatures (?:couldn't be verified|were invalid)|Missing key|"
        r"[Aa]t least one invalid signature",
        "the VM's package sources are not signed by a key that the VM trusts",
        "an image that is too old has no new keys: another image may",
    ),
    Symptom(
        r"Unable to locate package|no installation candidate",
        "the VM's package sources do not offer what is needed",
        "another image, or another Docker package, may: see `invoke lab.config`",
    ),
    Symptom(
        r"unmet dependencies|held broken packages|Unable to correct problems",
        "the packages do not go together with what is installed in the VM",
        "`invoke lab.up --fresh` makes a new VM; in your own, remove what apt names below",
    ),
    Symptom(
        r"Failed to fetch|Unable to fetch|failed to download",
        "the VM's package sources did not give what is needed; apt's own reason is below",
        "check the host's network and proxy; lab's Debian image carries Docker's packages with it",
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
    repaired = corrected = False
    while True:
        try:
            _unlocked(guest, argv, step, deadline)
            return
        except CommandError as error:
            if aptwords.BROKEN_OFF in error.tail and not repaired:
                repaired = True
                step.note("an installation was broken off earlier: finishing it")
                try:
                    _unlocked(guest, aptwords.BROKEN_OFF.split(), step, deadline)
                except CommandError as failed:
                    raise explained(failed) from failed
            elif not corrected and (note := correct_clock(guest, error, deadline)):
                corrected = True
                step.note(note)
            else:
                raise explained(error) from error


def _unlocked(guest: Guest, argv: list[str], step: Step, deadline: Deadline) -> None:
    """Run it once no other package manager is at work. Raises CommandError."""
    progress = _Progress(step)
    while True:
        try:
            guest.run([*_ENVIRONMENT, *argv], sudo=True, deadline=deadline, on_line=progress)
            return
        except CommandError as error:
            if not aptwords.LOCKED.search(error.tail) or deadline.passed:
                raise
            progress.wait()
            pause(min(_LOCK_SECONDS, deadline.left))


def correct_clock(guest: Guest, error: CommandError, deadline: Deadline) -> str:
    """Where a command failed for the VM's time, and that is wrong, set it: what was done, else empty.

    The clock of somebody's machine is left alone.
    """
    if guest.terms.somebodys:
        return ""
    return clock.correct(guest, deadline) if _CLOCK.search(error.tail) else ""


def explained(error: CommandError) -> LabError:
    """A failed apt command as the fault it shows."""
    if fault := diagnose(error.tail, _SYMPTOMS):
        return fault
    words = [word for word in error.argv if word in ("apt-get", "dpkg")]
    return LabError(
        f"{words[0] if words else error.argv[0]} failed in the VM with status {error.status}",
        hint="`invoke lab.ssh` and look at /var/log/apt/term.log",
        tail=error.tail,
    )


class _Progress:
    """Turns apt's status lines into a step's progress, in percent: fetching, then unpacking.

    That another package manager is waited for is a note.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._waits = False

    def __call__(self, line: str) -> None:
        if match := _STATUS.match(line):
            kind, _, percent, text = match.groups()
            half = 0.0 if kind == "dl" else 50.0
            self._step.progress(half + float(percent) / 2, 100, text)
        elif line.startswith(("Get:", "Err:")):
            self._step.progress(0, None, line)
        elif aptwords.WAITS.search(line):
            self.wait()

    def wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._step.note("another package manager is at work in the VM: waiting for it")

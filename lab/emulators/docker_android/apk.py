"""Installing an app over ADB, by Android's own package manager."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from lab.adb import AdbServer
from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError, UsageError
from lab.core.steps import Step

_REMOTE = "/data/local/tmp/lab-install.apk"
_ZIP = b"PK\x03\x04"
_LISTED = re.compile(r"^package:(?:(?P<file>.*)=)?(?P<name>[\w.]+)$")
_FAILURE = re.compile(r"Failure \[(?P<why>[^\]]*)\]|Error: (?P<error>.*)")


def install(server: AdbServer, address: str, apk: Path, step: Step, deadline: Deadline) -> str:
    """The name of the installed package; empty when it cannot be told. An older one is replaced.

    Raises UsageError for a file that is no APK, LabError with the package manager's words.
    """
    _check(apk)
    ask = ("pm", "list", "packages", "-f")
    before = packages(server.shell(address, *ask, deadline=deadline, seconds=deadline.left))
    step.note(f"{apk.stat().st_size / 1e6:.1f} MB")
    proc.run(server.command(address, "push", str(apk), _REMOTE, deadline=deadline), deadline=deadline)
    try:
        printed = server.shell(
            address, "pm", "install", "-r", "-t", _REMOTE, deadline=deadline, seconds=deadline.left
        )
    finally:
        with contextlib.suppress(LabError):  # what went wrong before it is what is told
            server.shell(address, "rm", "-f", _REMOTE, deadline=Deadline.after(60))
    if "Success" not in printed.split():
        raise LabError(f"Android does not take {apk.name}: {refusal(printed)}", tail=proc.tail(printed))
    after = packages(server.shell(address, *ask, deadline=deadline, seconds=deadline.left))
    # A package that was there before lies in another file now.
    changed = sorted(name for name, file in after.items() if before.get(name) != file)
    step.result = ", ".join(changed) or "installed"
    return changed[0] if len(changed) == 1 else ""


def packages(printed: str) -> dict[str, str]:
    """Package to its file (empty where that is not told), of `pm list packages -f`."""
    matches = (_LISTED.match(line.strip()) for line in printed.splitlines())
    return {match["name"]: match["file"] or "" for match in matches if match}


def refusal(printed: str) -> str:
    """Why the package manager refused, in its own words."""
    if failure := _FAILURE.search(printed):
        return failure["why"] or failure["error"]
    return next(iter(reversed(printed.split("\n"))), "").strip() or "it said nothing"


def _check(apk: Path) -> None:
    try:
        with apk.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise UsageError(f"{apk} cannot be read: {error.strerror}") from error
    if magic != _ZIP:
        raise UsageError(f"{apk} is no APK: it is not a zip file")

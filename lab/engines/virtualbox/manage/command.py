"""VBoxManage as a command: in English, asked again while VirtualBox is busy, its failures as one error."""

from __future__ import annotations

import re
import time
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline, pause
from lab.core.errors import BlockedError, CommandError
from lab.engines.virtualbox.transport import as_error
from lab.engines.virtualbox.worker import faults

_BUSY_SECONDS = 30.0
"""A VM process that ends lets go of its VM a moment later than VirtualBox says it ended."""
_CODE = re.compile(r"\(0x([0-9a-f]{8})\)")
_NO_SERVER = "Failed to create the VirtualBox object"
_NOT_LOCKED = "LockMachine(a->session, LockType_Shared)"
"""Where `showvminfo` could not ask the VM's own process (showVMInfo, VBoxManageInfo.cpp)."""
_ERROR = re.compile(r"^VBoxManage(?:\.exe)?: error: (.*)$", re.MULTILINE)
_PERCENT = re.compile(r"^[0-9%. ]+$", re.MULTILINE)


class Program:
    """The VBoxManage at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, doing: str, *words: str | Path, deadline: Deadline) -> str:
        """What it prints. `doing` is what an error calls the attempt.

        A busy VM, and a VBoxSVC that died, are tried for half a minute. Raises the error of the kind of
        VirtualBox's fault, with its own words (lab.engines.virtualbox.transport); DeadlineError,
        InterruptedByUser.
        """
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._once(*words, deadline=deadline)
            except CommandError as error:
                fault = explain(error.tail, doing)
                if fault.kind not in ("busy", "dead") or time.monotonic() > until:
                    raise as_error(fault.kind, fault.what, fault.tail, fault.hint) from error
            pause(0.1)

    def _once(self, *words: str | Path, deadline: Deadline) -> str:
        try:
            return proc.run(
                [self.path, *words], deadline=deadline, env={"LANG": "C", "LC_ALL": "C", "LANGUAGE": "C"}
            ).out
        except BlockedError as error:
            raise BlockedError(
                f"{self.path} cannot be run",
                tail=error.tail,
                hint="install VirtualBox, or set virtualbox.home to its program folder",
            ) from error


def explain(output: str, doing: str) -> faults.FaultError:
    """The fault behind what a failed VBoxManage printed."""
    tail = proc.tail(_PERCENT.sub("", output))
    if _NO_SERVER in output:  # VBoxSVC died a moment ago, and the next is not up yet
        return faults.FaultError("dead", f"VBoxSVC does not answer: {doing}", tail)
    if _NOT_LOCKED in output:  # its process begins or ends just now
        return faults.FaultError("busy", f"the VM is between two states: {doing}", tail)
    codes = [int(code, 16) for code in _CODE.findall(output)]
    words = [line for line in _ERROR.findall(output) if not line.startswith(("Details:", "Context:"))]
    return faults.of_code(codes[0] if codes else 0, " ".join(words) or tail, doing, tail)

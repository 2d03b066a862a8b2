"""Errors a person can act on: what happened, the evidence, a hint; and the exit codes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple


class ExitCode(IntEnum):
    """The contract of every task (docs/tasks.md)."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    REFUTED = 10
    BLOCKED = 11
    INCONCLUSIVE = 12
    BUSY = 20
    INTERRUPTED = 130


def ending(status: int | None) -> str:
    """How a program ended, by its exit status, as the end of a sentence; a signal by its name.

    `status` is None where it is not known, negative where a signal ended a child of lab's own, and 128 plus
    the signal's number where a shell or Docker reports one.
    """
    names = {known.value: known.name for known in signal.Signals}
    if status is None or status < 0:
        name = names.get(-(status or 0), "")
        return f"was killed by {name}" if name and status != -1 else "was killed"
    name = names.get(status - 128, "")
    return f"ended with status {status}" + (f" ({name})" if name else "")


class LabError(Exception):
    """Something lab can explain.

    `what` is one sentence; `hint` says what to do next; `evidence` names files;
    `tail` holds the last lines of the output that shows it.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        evidence: Sequence[Path | str] = (),
        tail: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.evidence = [str(item) for item in evidence]
        self.tail = tail


class UsageError(LabError):
    """Bad usage or configuration: nothing was created."""

    exit_code = ExitCode.USAGE


class BlockedError(LabError):
    """A prerequisite is absent: a package, an image, disk, memory, a reachable mirror."""

    exit_code = ExitCode.BLOCKED


class InconclusiveError(LabError):
    """lab could not find out, so it must not say."""

    exit_code = ExitCode.INCONCLUSIVE


class DeadlineError(InconclusiveError):
    """Something did not happen in the time it was given."""


class BusyError(LabError):
    """Another command holds what this one needs; the text names the holder."""

    exit_code = ExitCode.BUSY


class InterruptedByUser(LabError):  # noqa: N818 - an interruption, not a fault
    """Ctrl-C or a signal asked this command to stop."""

    exit_code = ExitCode.INTERRUPTED


class CommandError(LabError):
    """An external command failed. Carries its argument list, its exit status and output tail."""

    def __init__(
        self,
        argv: Sequence[str],
        status: int | None,
        *,
        tail: str = "",
        hint: str = "",
        evidence: Sequence[Path | str] = (),
        what: str = "",
    ) -> None:
        super().__init__(
            what or f"`{' '.join(argv)}` {ending(status)}", hint=hint, evidence=evidence, tail=tail
        )
        self.argv = list(argv)
        self.status = status


class Symptom(NamedTuple):
    """What a program says of a fault (a regular expression), the fault in a sentence, and what helps."""

    pattern: str
    what: str
    hint: str
    kind: type[LabError] = BlockedError


def diagnose(tail: str, symptoms: Iterable[Symptom]) -> LabError | None:
    """The fault that a program's last words show: the first symptom in them; None without one."""
    for symptom in symptoms:
        if re.search(symptom.pattern, tail):
            return symptom.kind(symptom.what, hint=symptom.hint, tail=tail)
    return None

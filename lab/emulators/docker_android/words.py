"""What the emulator itself said last, out of a log into which the image's own program writes as well. Pure.

An emulator that does not start says why and ends: before its banner (`Android emulator version`), after
it, or in the place of it, where the dynamic loader or the shell speaks.
"""

from __future__ import annotations

import re
from itertools import dropwhile, takewhile

from lab.emulators import lastwords

LINES = 6
"""How many lines of a log are shown."""

_LAUNCH = "Command to run"
"""The image's own word before it starts the emulator (cli/src/device/emulator.py)."""
_IMAGES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_TRACEBACK = "Traceback (most recent call last)"
_BEGINS = re.compile(
    r".*Android emulator version|emulator: |PANIC: |\S*/(?:emulator|qemu-system-\S+): "
    r"|(?:[A-Z]+_)?(?:VERBOSE|DEBUG|INFO|WARNING|ERROR|FATAL) *\|"
)
"""How a line of the emulator's own begins, in its forms of two ages."""
_CALM = re.compile(
    r"(?:[A-Z]+_)?(?:VERBOSE|DEBUG|INFO|WARNING) *\||emulator: (?:INFO|WARNING|VERBOSE|Android)"
    r"|.*Android emulator version|.*\bwarning:",
)
_COMPLAINT = re.compile(
    r"(?:emulator: )?(?:[A-Z]+_)?(?:ERROR|FATAL|PANIC)\b|Fatal: |\S*(?:/emulator|qemu-system-\S+): "
)
# That it ended is no reason, and each start of it complains of adb's server, which is not there yet.
_NO_REASON = re.compile(r"ended with status|adb daemon", re.IGNORECASE)


def own(log: str) -> list[str]:
    """The emulator's own lines, of its last launch."""
    _, launched, rest = log.rpartition(_LAUNCH)
    text = (rest.partition("\n")[2] if launched else log).splitlines()
    kept = [line.strip() for line in _without_images(text) if line.strip()]
    return kept if launched else list(dropwhile(lambda line: not _BEGINS.match(line), kept))


def spoke(log: str) -> bool:
    """Whether the emulator itself has said something, or somebody in its place why it does not run."""
    return any(_BEGINS.match(line) or lastwords.trouble(line) for line in own(log))


def last(log: str) -> tuple[str, ...]:
    """The lines it ended with, after the last that was calm."""
    block = list(takewhile(lambda line: not _CALM.match(line), reversed(own(log))))
    return tuple(line[:300] for line in reversed(block[:LINES]))


def reason(log: str) -> tuple[str, ...]:
    """The same, where they say why it ended; empty where they do not."""
    lines = tuple(line for line in last(log) if not _NO_REASON.search(line))
    return lines if any(_COMPLAINT.match(line) or lastwords.trouble(line) for line in lines) else ()


def _without_images(text: list[str]) -> list[str]:
    """Without the lines that the image's program writes: stamped ones, and its tracebacks."""
    kept, in_traceback = [], False
    for line in text:
        if line.startswith(_TRACEBACK):
            in_traceback = True
        elif in_traceback:
            in_traceback = line.startswith(" ") or not line.strip()  # its last line is the error
        elif not _IMAGES.match(line):
            kept.append(line)
    return kept

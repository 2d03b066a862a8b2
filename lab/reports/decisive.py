"""Of a log the lines that decide: what it says of virtualization, and of failures. Never raises."""

from __future__ import annotations

import re
from collections.abc import Callable

from lab.core.characters import one_line, printable
from lab.engines.virtualbox import vboxlog

_LONGEST = 240
_STAMP = re.compile(r"^(?:\[\s*\d+\.\d+\]|\d+:\d\d:\d\d\.\d+)\s*")
_KERNEL = re.compile(
    r"\bkvm|\bsvm\b|\bvmx\b|VT-x|AMD-V|nested|hypervisor detected|switched to clocksource"
    r"|detected virtualization|\bBUG\b|\bOops\b|panic|lockup|hung_task|blocked for more than|\bstall"
    r"|out of memory|oom-kill|segfault"
    r"|I/O error|EXT4-fs error|general protection|hardware error|unhandled",
    re.IGNORECASE,
)
_VBOX = re.compile(r"GIM: Using provider|VMSetError|Guru Meditation|fatal error|Console: .*(?:error|failed)")
_QEMU = re.compile(r"^qemu-|error|failed|assert|warning", re.IGNORECASE)
_CHANGING = re.compile(
    r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\[\d+\]|\b\d{3,}\b|\b\d+\.\d+\b", re.IGNORECASE
)  # addresses, process ids, sizes, times: another in every run


def _kernel(text: str) -> list[str]:
    return [line for line in map(_plain, text.splitlines()) if _KERNEL.search(line)]


def _vbox(text: str) -> list[str]:
    ran = vboxlog.parse(text)
    own = [ran.engine_line, *ran.nested_lines, ran.nested_refused, ran.disk_full]
    guest = ("Guest Log: ", "VMMDev: Guest Log: ")
    lines = (line for line in map(_plain, text.splitlines()) if not line.startswith(guest))
    wanted = [line for line in own if line] + [line for line in lines if _VBOX.search(line)]
    return list(dict.fromkeys(wanted))


def _qemu(text: str) -> list[str]:
    return [line for line in map(_plain, text.splitlines()) if _QEMU.search(line)]


LOGS: dict[str, Callable[[str], list[str]]] = {"VBox.log": _vbox, "dmesg.txt": _kernel, "qemu.log": _qemu}
"""Evidence file to what finds its decisive lines."""


def only_in(lines: list[str], other: list[str]) -> list[str]:
    """The lines that have no like in `other`, once each: alike are two that differ in numbers of one run."""
    known = {_key(line) for line in other}
    unlike: dict[str, str] = {}
    for line in lines:
        if (key := _key(line)) not in known:
            unlike.setdefault(key, line)
    return list(unlike.values())


def _key(line: str) -> str:
    return _CHANGING.sub("#", line)


def _plain(line: str) -> str:
    return one_line(printable(_STAMP.sub("", line.strip(), count=1)))[:_LONGEST]

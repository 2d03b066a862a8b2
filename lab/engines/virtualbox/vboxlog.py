"""Reads a VBox.log: which execution engine really ran, what became of nested virtualization.

The lines are those VirtualBox 6.1 to 7.2 write (src/VBox/VMM/VMMR3: HM.cpp, NEMR3.cpp, CPUM.cpp).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lab.engines.protocol import NESTING_REFUSED

RanBy = Literal["hwvirt", "native", "interpreter", ""]

_KEPT = 40
"""Lines kept: a VM that fails in a loop logs the same for hours."""

_LONGEST = 200
"""Characters of a line that is shown."""

_STAMP = re.compile(r"^\s*(?:[0-9]+:[0-9]{2}:[0-9]{2}\.[0-9]+)?\s*")
_ENGINES: tuple[tuple[RanBy, re.Pattern[str]], ...] = (
    ("hwvirt", re.compile(r"HM: HMR3Init: (?:VT-x|AMD-V)(?: w/| and|$)")),
    # "Snail" on Windows (WinHvPlatform), "Turtle" on macOS (Hypervisor.framework) and Linux (KVM).
    # Before 7.0 it said but "Active." on Windows.
    ("native", re.compile(r"NEM: NEMR3Init: (?:\w+ execution mode is active|Active\.)")),
    ("interpreter", re.compile(r"HM: HMR3Init: Falling back on IEM")),
)
_SETTING = re.compile(r"NestedHWVirt\s+<integer>\s+= 0x[0-9a-fA-F]{1,16}\b")
_CPUID = re.compile(r"(?:VMX - Virtual Machine|SVM - AMD)\b.*= [01] \([01]\)")
_NESTED = re.compile(r"(?:CPUM|HM|NEM|EM|VMSetError|IEM): .*nested", re.IGNORECASE)
# CPUMR3CpuId.cpp, 7.0 to 7.2 (since then CPUMR3CpuId-x86.cpp): "... when NEM is used! (later)" on a Mac.
_NO_NESTING = re.compile(r"CPUM: Warning! Can't turn on nested VT-x/AMD-V\b")
_NESTED_PAGING = re.compile(r"nested.?paging", re.IGNORECASE)
# The runtime errors DrvVD_DISKFULL and DevATA_DISKFULL (src/VBox/Devices/Storage: DrvVD.cpp, DevATA.cpp).
_DISK_FULL = re.compile(r"\b\w+_DISKFULL\b|: Host disk full$")
_RUNS_ON = re.compile(r"Changing the VM state from '\w+' to '(?:RESUMING|RUNNING)'")
_OF_GUEST = ("Guest Log: ", "VMMDev: Guest Log: ")


@dataclass(frozen=True)
class RunLog:
    """What one VBox.log says; everything is empty or None where it says nothing."""

    engine: RanBy = ""
    """ "hwvirt": VirtualBox's own ring-0 hypervisor; "native": the system's; "interpreter": no processor."""
    engine_line: str = ""
    nested_refused: str = ""
    """The line that says that it takes the setting and gives the guest nothing: VirtualBox's own word."""
    nested_lines: tuple[str, ...] = ()
    """What it says of nested virtualization, runs of spaces made one."""
    disk_full: str = ""
    """The line with which the VM was paused for want of space on the host, unless it ran on since."""


def parse(text: str) -> RunLog:
    """Never raises. Lines are given without their time stamp; what the guest itself logs is left out."""
    engine: RanBy = ""
    engine_line = full = refused = ""
    nested: dict[str, None] = {}
    for raw in text.splitlines():
        line = _STAMP.sub("", raw, count=1).rstrip()
        if not line or line.startswith(_OF_GUEST):
            continue
        for name, pattern in _ENGINES:
            if pattern.match(line):
                engine, engine_line = name, line
        if _DISK_FULL.search(line):
            full = line
        elif _RUNS_ON.match(line):
            full = ""
        if _NO_NESTING.match(line):
            refused = line[:_LONGEST]
        if _SETTING.match(line) or _CPUID.match(line) or _says_nested(line):
            nested[" ".join(line.split())] = None
    return RunLog(
        engine=engine,
        engine_line=engine_line,
        nested_refused=refused,
        nested_lines=tuple(nested)[:_KEPT],
        disk_full=full,
    )


def settings(text: str) -> dict[str, str]:
    """What the log says of the run, as lab.engines.protocol.Machine.settings gives it. Never raises."""
    ran = parse(text)
    described = {
        "acceleration": ran.engine or "unknown",
        "log_engine": ran.engine_line,
        "log_nested": "; ".join(ran.nested_lines),
        NESTING_REFUSED: ran.nested_refused,
    }
    return {key: value for key, value in described.items() if value}


def _says_nested(line: str) -> bool:
    # "Nested paging" is the host's own two-dimensional paging, another matter.
    return bool(_NESTED.match(line) and _NESTED.match(_NESTED_PAGING.sub("", line)))

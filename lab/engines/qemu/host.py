"""QEMU as this host has it: which program, what that can do, and which acceleration."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.engines.options import QEMU, Acceleration
from lab.engines.qemu import network
from lab.engines.qemu.command import SANDBOX, Accelerator

MINIMUM = (7, 2)
"""Older ones lack PNG screenshots and AMD-V emulation good enough for KVM."""

_QUESTIONS = "".join(
    json.dumps({"execute": name}) + "\n" for name in ("qmp_capabilities", "query-machines", "quit")
)
_VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Capabilities:
    """`machine` is the versioned name of this QEMU's newest q35 type."""

    machine: str
    sandbox: bool


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in `--version`'s output."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


@lru_cache
def version(binary: str) -> tuple[int, int, int] | None:
    """The program's version, or None when it is absent or does not tell."""
    if not shutil.which(binary):
        return None
    done = proc.run([binary, "--version"], deadline=Deadline.after(20), check=False)
    return parse_version(done.out) if done.status == 0 else None


@lru_cache
def capabilities(binary: str) -> Capabilities:
    """Start it without a machine and ask. Raises BlockedError when it is not installed, LabError."""
    argv = [binary, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"]
    argv += ["-qmp", "stdio"]
    for extra in (["-sandbox", SANDBOX], []):
        deadline = Deadline.after(20)
        done = proc.run([*argv, *extra], deadline=deadline, check=False, stdin=_QUESTIONS)
        if done.status == 0 and (machine := newest_q35(done.out)):
            return Capabilities(machine, bool(extra))
    raise LabError(
        f"`{binary}` does not offer the q35 machine",
        hint="install the full x86 system emulator; `invoke lab.doctor` names the package",
        tail=proc.tail(done.err or done.out),
    )


def newest_q35(answers: str) -> str:
    """The versioned machine type that the alias `q35` means, from QMP's answers; "" if none."""
    for line in answers.splitlines():
        try:
            answer = json.loads(line).get("return")
        except ValueError:
            continue
        for machine in answer if isinstance(answer, list) else []:
            if machine.get("alias") == "q35":
                return str(machine["name"])
    return ""


class KvmUse(Protocol):
    """What the functional probe of KVM found."""

    @property
    def usable(self) -> bool: ...

    @property
    def why(self) -> str: ...

    @property
    def nested(self) -> bool:
        """Whether KVM hands the virtualization extension on to its guests."""


@dataclass
class HostQemu:
    """QEMU on this host, asked as late as can be."""

    kvm: Callable[[], KvmUse]
    """Whether KVM really runs a kernel here. It boots one: called at most once, and never for `tcg`."""
    acceleration: Acceleration = "auto"
    binary: str = QEMU
    image_tool: str = "qemu-img"
    start_seconds: float = 60.0
    """How long a QEMU that was started may take to answer."""
    device: Path = Path("/dev/kvm")
    find: Callable[[str], str | None] = shutil.which
    """Where a program is."""
    version: Callable[[str], tuple[int, int, int] | None] = version
    capabilities: Callable[[str], Capabilities] = capabilities
    why_open: Callable[[], str] = network.why_open
    """Why a VM here can reach the host's loopback; empty when it cannot."""

    def __post_init__(self) -> None:
        self.kvm = cache(self.kvm)

    def accelerator(self) -> Accelerator:
        """What VMs run by: for `auto`, KVM where it works."""
        if self.acceleration == "auto":
            return "kvm" if self.kvm().usable else "tcg"
        return self.acceleration

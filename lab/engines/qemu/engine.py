"""lab.engines.protocol.Engine on QEMU."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lab.core.errors import LabError
from lab.core.journal import Journal
from lab.engines.protocol import Availability, EngineFacts, EngineFinding, MachineSpec
from lab.engines.qemu.host import MINIMUM, HostQemu
from lab.engines.qemu.machine import QemuMachine


class QemuEngine:
    """Drives the QEMU of `host`."""

    name = "qemu"

    def __init__(self, host: HostQemu) -> None:
        self._host = host

    def availability(self) -> Availability:
        host = self._host
        missing = [tool for tool in (host.binary, host.image_tool) if not host.find(tool)]
        if missing:
            return Availability(
                False,
                f"{' and '.join(missing)} not found",
                "install QEMU: `brew install qemu`"
                if sys.platform == "darwin"
                else "install QEMU: `apt-get install qemu-system-x86 qemu-utils`",
            )
        installed = host.version(host.binary)
        if not installed or installed < (*MINIMUM, 0):
            have = ".".join(map(str, installed)) if installed else "a QEMU that does not tell its version"
            wanted = ".".join(map(str, MINIMUM))
            return Availability(False, f"this is {have}; lab needs QEMU {wanted} or newer", "upgrade QEMU")
        if host.acceleration == "kvm" and not os.access(host.device, os.R_OK | os.W_OK):
            return Availability(
                False,
                f"kvm is asked for, and {host.device} cannot be opened",
                "use acceleration `auto`, or give this user access to it (group kvm)",
            )
        try:
            host.capabilities(host.binary)
        except LabError as error:
            return Availability(False, error.what, error.hint)
        return Availability(True, f"QEMU {'.'.join(map(str, installed))}: {self._how()}")

    def facts(self) -> EngineFacts:
        """Raises BlockedError when QEMU is not installed."""
        host = self._host
        accelerator = host.accelerator()
        able = host.capabilities(host.binary)
        numbers = host.version(host.binary) or ()
        why_open = host.why_open()
        return EngineFacts(
            engine=self.name,
            version=".".join(map(str, numbers)),
            acceleration=accelerator,
            nesting=self._nesting(),
            how=self._how(),
            details={
                "binary": host.find(host.binary) or host.binary,
                "machine": able.machine,
                "sandbox": "on" if able.sandbox else "off",
                "acceleration_asked": host.acceleration,
                "host_loopback": f"within reach: {why_open}" if why_open else "out of reach",
            },
        )

    def findings(self, folders: Sequence[Path]) -> list[EngineFinding]:  # noqa: ARG002
        why = self._host.why_open()
        if not why:
            return [EngineFinding("host's loopback", True, "out of the VM's reach, in a network namespace")]
        return [
            EngineFinding(
                "host's loopback", False, f"within the VM's reach at 10.0.2.2: {why}", self._closing()
            )
        ]

    def caution(self) -> str:
        return ""

    def machine(self, spec: MachineSpec, journal: Journal) -> QemuMachine:
        return QemuMachine(spec, journal, self._host)

    def _closing(self) -> str:
        if sys.platform != "linux":
            return "QEMU has no way here: stop what listens on 127.0.0.1 and should not meet the VM"
        return (
            "install slirp4netns; an ordinary user must also be let make user namespaces "
            "(Ubuntu's AppArmor restricts them)"
        )

    def _nesting(self) -> Literal["hardware", "emulated", "none"]:
        if self._host.accelerator() == "tcg":
            return "emulated"
        return "hardware" if self._host.kvm().nested else "none"

    def _how(self) -> str:
        host = self._host
        if host.acceleration == "tcg":
            return "emulation as configured; it emulates AMD-V, and offers guests no paravirtualization"
        if host.accelerator() == "tcg":
            return (
                f"emulation, because KVM is not usable here ({host.kvm().why}); it emulates AMD-V, "
                "and offers guests no paravirtualization"
            )
        why = "KVM as configured" if host.acceleration == "kvm" else f"KVM ({host.kvm().why})"
        nested = "hands on" if host.kvm().nested else "does not hand on"
        return f"{why}; it {nested} the CPU's virtualization extension"

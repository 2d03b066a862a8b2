"""QEMU's emulation in software: a PC with AMD's processor extension, AMD-V.

Nothing of it listens: it has no display and no network card, and its protocol is spoken over pipes.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, ending
from lab.rehearsal import models
from lab.rehearsal.pc import DISK, SYSTEM, PcFacts, kernel_line
from lab.rehearsal.process import Sign
from lab.rehearsal.program import ProgramPc

PROGRAM = "qemu-system-x86_64"
_OLDEST = (7, 2)
"""Earlier ones emulate AMD-V not well enough for KVM."""
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_ASK_SECONDS = 20.0
_WITH = ("svm", "npt")
# Without 5-level paging: a hypervisor may build 4-level nested tables, and its guests then never leave the
# reset vector. Without cmpxchg16b, after which QEMU 7.2 corrupted the flags. Without XSAVE, with which the
# kernel of a VM in it refuses its own signal frames ("bad frame in rt_sigreturn"), and what needs it.
_WITHOUT = (
    "la57",
    "cx16",
    "xsave",
    "xsaveopt",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "vaes",
    "vpclmulqdq",
    "mpx",
    "pku",
)
_GOOD_END = "guest-shutdown"
_REASONS = {
    "guest-reset": "it restarted: its Linux panicked, or its processor met a triple fault",
    "guest-panic": "its Linux panicked",
}
"""Of QEMU's event SHUTDOWN (its QMP reference, ShutdownCause)."""


@dataclass
class QemuPc(ProgramPc):
    """An emulated PC (lab.rehearsal.pc.EmulatedPc). Its time is the host's: a busy host makes it late."""

    program: str = PROGRAM

    output: ClassVar[str] = "qmp.log"
    errors: ClassVar[str] = "qemu.err"
    opening: ClassVar[bytes] = b'{"execute": "qmp_capabilities"}\n'
    """From then on it tells of events."""

    @property
    def logs(self) -> list[Path]:
        """What QEMU told in its protocol, what it complained of, the serial port."""
        return [self.spec.folder / self.output, self.spec.folder / self.errors, self.serial]

    @property
    def sign(self) -> Sign:
        name = re.escape(Path(self.program).name)
        return Sign("-uuid", self.spec.uuid, re.compile(rf"qemu-system.*|qemu-kvm|{name}"))

    def facts(self) -> PcFacts:
        model = models.processor(self.spec.cpu, models.QEMU).model
        text = self._version().out
        version = re.search(r"QEMU emulator version ((\d+)\.(\d+)\S*)", text)
        if version is None:
            raise BlockedError(f"`{self.program}` does not say which QEMU it is", tail=proc.tail(text))
        if (int(version[2]), int(version[3])) < _OLDEST:
            raise BlockedError(
                f"QEMU {version[1]} emulates AMD-V not well enough; {_OLDEST[0]}.{_OLDEST[1]} does"
            )
        return PcFacts("qemu", version[1], model)

    def _version(self, *words: str) -> proc.Completed:
        return proc.run(
            [self.program, *words, "--version"], deadline=Deadline.after(_ASK_SECONDS), check=False
        )

    def arguments(self, facts: PcFacts) -> list[str]:
        spec, sign = self.spec, self.sign
        argv = [
            self.program,
            sign.option,
            sign.mark,
            "-nodefaults",
            "-no-user-config",
            "-msg",
            "timestamp=on",
        ]
        if self._version("-sandbox", _SANDBOX).status == 0:  # not every build has it
            argv += ["-sandbox", _SANDBOX]
        features = [*(f"{name}=on" for name in _WITH), *(f"{name}=off" for name in _WITHOUT)]
        argv += ["-machine", "pc", "-accel", "tcg", "-cpu", ",".join([facts.processor, *features])]
        argv += ["-smp", "1", "-m", f"{spec.memory_mib}M", "-rtc", "base=utc", "-no-reboot"]
        argv += ["-display", "none", "-vga", "none", "-nic", "none", "-qmp", "stdio"]
        argv += ["-serial", f"file:{self.serial.name}"]
        argv += ["-kernel", str(spec.kernel.absolute()), "-initrd", str(spec.initramfs.absolute())]
        argv += ["-append", kernel_line(spec.command_line)]
        # What a killed lab leaves is not used, so nothing waits for the host's disk.
        disks = [(SYSTEM, "snapshot=on", spec.system), (DISK, "snapshot=off", spec.disk)]
        for place, (model, how, path) in enumerate(disks):
            if path:
                argv += ["-drive", f"if=none,id={model},file={model},format=raw,cache=unsafe,{how}"]
                argv += ["-device", f"ide-hd,drive={model},model={model},bus=ide.0,unit={place}"]
        return argv

    def trouble(self, status: int | None) -> str:
        reasons = list(self._reasons())
        if not reasons or (reasons[-1] == _GOOD_END and status):
            return f"QEMU {ending(status)}"
        if reasons[-1] == _GOOD_END:
            return ""
        return _REASONS.get(reasons[-1], f"QEMU calls it {reasons[-1]}")

    def _reasons(self) -> Iterator[str]:
        """Why it shut down, each time that it told so; a line that is torn tells nothing."""
        for line in self.text(self.output).splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                message = json.loads(line)
                if message["event"] == "SHUTDOWN":
                    yield str(message["data"]["reason"])

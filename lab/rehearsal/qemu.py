"""QEMU's emulation in software: a PC with AMD's processor extension, AMD-V.

Nothing of it listens: it has no display and no network card, and its protocol is spoken over pipes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lab import proc
from lab.deadline import Deadline
from lab.errors import BlockedError, ending
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
        text = self._version().out
        version = re.search(r"QEMU emulator version ((\d+)\.(\d+)\S*)", text)
        if version is None:
            raise BlockedError(f"`{self.program}` does not say which QEMU it is", tail=proc.tail(text))
        if (int(version[2]), int(version[3])) < _OLDEST:
            raise BlockedError(
                f"QEMU {version[1]} emulates AMD-V not well enough; {_OLDEST[0]}.{_OLDEST[1]} does"
            )
        return PcFacts("qemu", version[1], models.processor(self.spec.cpu).model)

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
        ends = [event["data"] for event in self._events() if event.get("event") == "SHUTDOWN"]
        if not ends:
            return f"QEMU {ending(status)}"
        reason = str(ends[-1].get("reason"))
        if reason == _GOOD_END:
            return "" if not status else f"QEMU {ending(status)}"
        return _REASONS.get(reason, f"QEMU calls it {reason}")

    def _events(self) -> list[dict[str, Any]]:
        """What it told in its protocol; a line that is torn is none."""
        told = []
        for line in self.text(self.output).splitlines():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and isinstance(message.get("data", {}), dict):
                told.append(message)
        return told

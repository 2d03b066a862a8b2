"""Bochs: a PC with an Intel processor and its VT-x (EPT, unrestricted guest), all of it in software.

Nothing of it listens: its only display is one of text, and it has no network card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lab.core import files, proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError, ending
from lab.rehearsal import iso, models
from lab.rehearsal.pc import DISK, SYSTEM, PcFacts
from lab.rehearsal.process import Sign
from lab.rehearsal.program import ProgramPc

PROGRAM = "bochs"
_CYLINDER = 16 * 63 * 512
"""Bytes: heads, sectors and bytes a sector, as the settings below have them."""
_MOST_CYLINDERS = 262143
"""Bochs' own limit, in its bochsrc(5)."""
_ASK_SECONDS = 20.0
_PANIC = re.compile(r"^\d+p(\[.*?\]) >>PANIC<<\s*(.+)$", re.MULTILINE)
_GOOD_END = ("[ACPI  ]", "ACPI control: soft power off")
"""Bochs calls it a panic, and ends with status 1."""
_BEGIN = "c\n"
"""A Bochs with a debugger, as Debian's is, waits for a command to let the PC go."""
_NO_DISK = "ata0: enabled=0"
_DISKS = "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14"


def disk_bytes(least: int) -> int:
    """The size of a disk of at least so many bytes: Bochs has whole cylinders. Raises UsageError."""
    cylinders = max(1, -(-least // _CYLINDER))
    if cylinders > _MOST_CYLINDERS:
        raise UsageError(f"Bochs has no disk of more than {_MOST_CYLINDERS * _CYLINDER >> 30} GiB")
    return cylinders * _CYLINDER


@dataclass
class BochsPc(ProgramPc):
    """An emulated PC (lab.rehearsal.pc.EmulatedPc).

    `program` is Bochs, or a script that becomes it by `exec`. `instructions_per_second` is of the guest's own
    seconds: fewer make the guest's waiting cheaper, and its timer dearer. Its time follows its instructions,
    so how busy the host is does not matter to it.
    """

    program: str = PROGRAM
    instructions_per_second: int = 200_000_000
    loader: iso.Loader = iso.LOADER

    output: ClassVar[str] = "bochs.out"
    errors: ClassVar[str] = "bochs.out"

    @property
    def logs(self) -> list[Path]:
        """Bochs' own log, all else it said, the serial port."""
        return [self.spec.folder / "bochs.log", self.spec.folder / self.output, self.serial]

    @property
    def sign(self) -> Sign:
        """The file of its settings, as its arguments name it."""
        return Sign(
            "-f", f"{self.spec.uuid}.bochsrc", re.compile(rf"bochs.*|{re.escape(Path(self.program).name)}")
        )

    def facts(self) -> PcFacts:
        model = models.processor(self.spec.cpu, models.BOCHS).model
        text = self._help("cpu")
        version = re.search(r"Bochs x86 Emulator (\S+)", text)
        if version is None:
            raise BlockedError(f"`{self.program}` does not say which Bochs it is", tail=proc.tail(text))
        if model not in text.split():
            raise BlockedError(f"Bochs {version[1]} has no processor {model} ({self.spec.cpu})")
        return PcFacts("bochs", version[1], model)

    def _help(self, *words: str) -> str:
        asked = proc.run([self.program, "--help", *words], deadline=Deadline.after(_ASK_SECONDS), check=False)
        return asked.out + asked.err

    def arguments(self, facts: PcFacts) -> list[str]:
        folder, sign = self.spec.folder, self.sign
        iso.write(
            folder / "boot.iso", self.spec.kernel, self.spec.initramfs, self.spec.command_line, self.loader
        )
        files.write_atomic(folder / sign.mark, self.settings(facts.processor))
        files.write_atomic(folder / "begin", _BEGIN)
        begin = ["-rc", "begin"] if re.search(r"^ *-rc\b", self._help(), re.MULTILINE) else []
        return [self.program, "-q", "-unlock", sign.option, sign.mark, *begin]

    def settings(self, model: str) -> str:
        """The bochsrc for the processor `model`. Raises UsageError for a disk that Bochs cannot have."""
        memory, speed = self.spec.memory_mib, self.instructions_per_second
        return f"""\
config_interface: textconfig
display_library: term
sound: driver=dummy
memory: guest={memory}, host={memory}
cpu: model={model}, count=1, ips={speed}, reset_on_triple_fault=0
clock: sync=none
romimage: file=$BXSHARE/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
{self._disks()}
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.log
log: bochs.log
panic: action=report
error: action=ignore
info: action=ignore
debug: action=ignore
"""

    def _disks(self) -> str:
        """The system disk is opened to be read; what is written there goes to a file without a name."""
        there = [(SYSTEM, "volatile", self.spec.system), (DISK, "flat", self.spec.disk)]
        lines = [_line(model, mode, path) for model, mode, path in there if path]
        places = [f"ata0-{place}: {line}" for place, line in zip(("master", "slave"), lines, strict=False)]
        return "\n".join([_DISKS, *places]) if places else _NO_DISK

    def trouble(self, status: int | None) -> str:
        panics = self._panics("bochs.log")
        # After any other it goes on, in whatever state it is: nothing that comes then can be relied on.
        bad = [panic for panic in panics if panic != _GOOD_END]
        if panics and not bad:
            return ""
        # What is wrong with its settings it says before it has a log.
        why = bad or self._panics(self.output)
        return " ".join(why[-1]) if why else f"Bochs {ending(status)}"

    def _panics(self, name: str) -> list[tuple[str, str]]:
        """Each panic in one of its files: the device, and its words."""
        return _PANIC.findall(self.text(name))


def _line(model: str, mode: str, path: Path) -> str:
    size = path.stat().st_size
    if size != disk_bytes(size):
        raise UsageError(f"{path} has {size} bytes, and a disk has {disk_bytes(size)}")
    geometry = f"cylinders={size // _CYLINDER}, heads=16, spt=63"
    return f'type=disk, path={model}, mode={mode}, {geometry}, model="{model}"'

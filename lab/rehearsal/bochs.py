"""Bochs: a PC with an Intel processor and its VT-x (EPT, unrestricted guest), all of it in software.

Nothing of it listens: its only display is one of text, and it has no network card.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lab import bounds, files, proc
from lab.deadline import Deadline, poll
from lab.errors import BlockedError, DeadlineError, InconclusiveError, UsageError, ending
from lab.rehearsal import iso, models, process
from lab.rehearsal.pc import Hear, PcFacts, PcSpec

_CYLINDER = 16 * 63 * 512
"""Bytes: heads, sectors and bytes a sector, as the settings below have them."""
_MOST_CYLINDERS = 262143
"""Bochs' own limit, in its bochsrc(5)."""
_LOG_BYTES = 64 << 20
"""Of all that a PC writes beside its disk. What goes on is a guest or an emulator gone wrong."""
_ASK_SECONDS = 20.0
_END_SECONDS = 10.0
_START_SECONDS = 30.0
_PANIC = re.compile(r"^\d+p(\[.*?\]) >>PANIC<<\s*(.+)$", re.MULTILINE)
_GOOD_END = ("[ACPI  ]", "ACPI control: soft power off")
"""Bochs calls it a panic, and ends with status 1."""
_BEGIN = "c\n"
"""Debian's Bochs has a debugger, which waits for a command to let the PC go."""


def disk_bytes(least: int) -> int:
    """The size of a disk of at least so many bytes: Bochs has whole cylinders. Raises UsageError."""
    cylinders = max(1, -(-least // _CYLINDER))
    if cylinders > _MOST_CYLINDERS:
        raise UsageError(f"Bochs has no disk of more than {_MOST_CYLINDERS * _CYLINDER >> 30} GiB")
    return cylinders * _CYLINDER


@dataclass
class BochsPc:
    """An emulated PC (lab.rehearsal.pc.EmulatedPc).

    `instructions_per_second` is of the guest's own seconds: fewer make the guest's waiting cheaper, and its
    timer dearer. Its time follows its instructions, so how busy the host is does not matter to it.
    """

    spec: PcSpec
    program: str = "bochs"
    instructions_per_second: int = 200_000_000
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def serial(self) -> Path:
        return self.spec.folder / "serial.log"

    @property
    def logs(self) -> list[Path]:
        """What tells how it went: Bochs' own log, all else it said, the serial port."""
        return [self.spec.folder / "bochs.log", self.spec.folder / "bochs.out", self.serial]

    @property
    def mark(self) -> str:
        """The file of its settings: its process is known by it."""
        return f"{self.spec.uuid}.bochsrc"

    def facts(self) -> PcFacts:
        model = models.bochs_model(self.spec.cpu)
        asked = proc.run([self.program, "--help", "cpu"], deadline=Deadline.after(_ASK_SECONDS), check=False)
        text = asked.out + asked.err
        version = re.search(r"Bochs x86 Emulator (\S+)", text)
        if version is None:
            raise BlockedError(f"`{self.program}` does not say which Bochs it is", tail=proc.tail(text))
        if model not in text.split():
            raise BlockedError(f"Bochs {version[1]} has no processor {model} ({self.spec.cpu})")
        return PcFacts("bochs", version[1], model)

    def start(self) -> None:
        if self.running():
            raise UsageError(f"the emulated PC {self.spec.uuid} runs already")
        model, folder = self.facts().processor, self.spec.folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.logs:
            path.unlink(missing_ok=True)
        iso.write(folder / "boot.iso", self.spec.kernel, self.spec.initramfs, self.spec.command_line)
        # By names of its own, since in Bochs' settings not every path can be written.
        (folder / "disk.img").unlink(missing_ok=True)
        if self.spec.disk:
            (folder / "disk.img").symlink_to(self.spec.disk.absolute())
        files.write_atomic(folder / self.mark, self.settings(model))
        files.write_atomic(folder / "begin", _BEGIN)
        self._child = self._spawn()
        try:
            process.remember(self._record, self._child.pid)
            self._await_bochs(self._child)
        except BaseException:  # a full disk, for one
            self.end()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        ends_with_us = ["setpriv", "--pdeathsig=KILL"]  # even where we are killed
        words = [*ends_with_us, self.program, "-q", "-unlock", "-f", self.mark, "-rc", "begin"]
        with (self.spec.folder / "bochs.out").open("ab") as output:
            try:
                return subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.spec.folder,
                    # A terminal that can do nothing, whatever ours is: nobody looks at it.
                    env={**os.environ, "TERM": "dumb"},
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise BlockedError(
                    f"`{words[0]}` is not installed", hint="it is in util-linux: an emulated PC is for Linux"
                ) from error

    def _await_bochs(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until the process has become Bochs, by which any other command knows it; or has ended."""

        def settled() -> bool | None:
            return child.poll() is not None or process.is_bochs(psutil.Process(child.pid), self.mark) or None

        poll(settled, Deadline.after(_START_SECONDS), "the start of Bochs", every=0.02)

    def settings(self, model: str) -> str:
        """The bochsrc for the processor `model`. Raises UsageError for a disk that Bochs cannot have."""
        disk = "ata0: enabled=0"
        if self.spec.disk:
            size = self.spec.disk.stat().st_size
            if size != disk_bytes(size):
                raise UsageError(f"{self.spec.disk} has {size} bytes, and a disk has {disk_bytes(size)}")
            disk = (
                "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n"
                "ata0-master: type=disk, path=disk.img, mode=flat, "
                f"cylinders={size // _CYLINDER}, heads=16, spt=63"
            )
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
{disk}
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

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return process.find(self._record, self.mark) is not None

    def wait(self, deadline: Deadline, hear: Hear | None = None) -> None:
        lines = bounds.LineSplitter(hear or (lambda _line: None))
        heard = 0

        def ended() -> bool | None:
            nonlocal heard
            over = not self.running()
            if sum(path.stat().st_size for path in self.logs if path.exists()) > _LOG_BYTES:
                raise self._trouble(f"writes without end (more than {_LOG_BYTES >> 20} MiB)")
            heard = self._listen(lines, heard)
            return over or None

        try:
            poll(ended, deadline, "the end of the emulated PC's work")
        except DeadlineError as error:
            raise DeadlineError(error.what, tail=self._last_words(), evidence=self.logs) from error
        lines.end()
        ends = self._panics("bochs.log")
        if not ends or ends[-1] != _GOOD_END:
            # What is wrong with its settings it says before it has a log.
            why = (ends or self._panics("bochs.out"))[-1:]
            status = self._child.poll() if self._child else None
            raise self._trouble(f"ended on its own: {' '.join(why[0]) if why else f'Bochs {ending(status)}'}")

    def end(self) -> None:
        if self._child is not None:
            self._child.kill()
            try:
                self._child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise process.survived(self._child.pid) from error
        elif running := process.find(self._record, self.mark):
            process.kill(running, self.mark)
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.spec.folder / "process.json"

    def _listen(self, lines: bounds.LineSplitter, start: int) -> int:
        """Tell of what came over the serial port since byte `start`; up to which byte that is."""
        with contextlib.suppress(FileNotFoundError), self.serial.open("rb") as stream:
            stream.seek(start)
            for chunk in iter(functools.partial(stream.read, bounds.CHUNK_BYTES), b""):
                lines.add(chunk)
            return stream.tell()
        return start

    def _panics(self, name: str) -> list[tuple[str, str]]:
        """Each panic in one of its files: the device, and its words."""
        return _PANIC.findall(self._text(self.spec.folder / name))

    def _trouble(self, what: str) -> InconclusiveError:
        return InconclusiveError(f"the emulated PC {what}", tail=self._last_words(), evidence=self.logs)

    def _last_words(self) -> str:
        return proc.tail("\n".join(self._text(path) for path in self.logs))

    def _text(self, path: Path) -> str:
        return bounds.read_text(path) if path.exists() else ""

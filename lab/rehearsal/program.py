"""What all emulated PCs have in common: a program in a folder of its own, which writes files alone."""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lab.core import bounds, proc
from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError, UsageError
from lab.rehearsal import process
from lab.rehearsal.pc import DISK, SYSTEM, Hear, PcFacts, PcSpec

_LOG_BYTES = 64 << 20
"""Of all that a PC writes beside its disks. What goes on is a guest or an emulator gone wrong."""
_END_SECONDS = 10.0


@dataclass
class ProgramPc(abc.ABC):
    """A PC as lab.rehearsal.pc.EmulatedPc has it, but for what its emulator alone knows.

    The emulator has no window, listens nowhere, and is told all in its arguments and files. It dies with
    the thread that started it.
    """

    spec: PcSpec
    program: str = ""
    most_log_bytes: int = _LOG_BYTES
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    output: ClassVar[str]
    """The file that its standard output goes to, in the PC's folder."""
    errors: ClassVar[str]
    """That of its standard error; it can be the same."""
    opening: ClassVar[bytes] = b""
    """What is written to its standard input, which then stays open. Without it there is no input."""

    @abc.abstractmethod
    def facts(self) -> PcFacts:
        """What emulates the PC (EmulatedPc.facts)."""

    @property
    @abc.abstractmethod
    def sign(self) -> process.Sign:
        """By which its process is known."""

    @property
    @abc.abstractmethod
    def logs(self) -> list[Path]:
        """What tells how it went; the serial port comes last."""

    @abc.abstractmethod
    def arguments(self, facts: PcFacts) -> list[str]:
        """The program and all it is told, its working folder being the PC's own. Writes the files it names.

        Raises BlockedError, UsageError.
        """

    @abc.abstractmethod
    def trouble(self, status: int | None) -> str:
        """Why it ended, in the emulator's words; empty where its Linux switched it off.

        `status` is None where another process started it.
        """

    @property
    def serial(self) -> Path:
        """The file of all that came over the first serial port."""
        return self.spec.folder / "serial.log"

    def start(self) -> None:
        if self.running():
            raise UsageError(f"the emulated PC {self.spec.uuid} runs already")
        facts, folder = self.facts(), self.spec.folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.logs:
            path.unlink(missing_ok=True)
        # By names of its own: not every path can be written in an emulator's settings.
        for model, disk in ((SYSTEM, self.spec.system), (DISK, self.spec.disk)):
            (folder / model).unlink(missing_ok=True)
            if disk:
                (folder / model).symlink_to(disk.absolute())
        self._child = self._spawn(self.arguments(facts))
        try:
            process.remember(self._record, self._child.pid)
        except BaseException:  # a full disk, for one
            self.end()
            raise

    def _spawn(self, words: list[str]) -> subprocess.Popen[bytes]:
        ends_with_us = ["setpriv", "--pdeathsig=KILL"]  # even where we are killed
        folder = self.spec.folder
        with (folder / self.output).open("ab") as output, (folder / self.errors).open("ab") as errors:
            try:
                child = subprocess.Popen(
                    [*ends_with_us, *words],
                    stdin=subprocess.PIPE if self.opening else subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=folder,
                    # A terminal that can do nothing, whatever ours is, since nobody looks at it; and what
                    # is forgotten at the end is written here, where there is room for a PC.
                    env={**os.environ, "TERM": "dumb", "TMPDIR": str(folder.absolute())},
                    start_new_session=True,
                    bufsize=0,  # nothing is left to be written at the end
                )
            except FileNotFoundError as error:
                raise BlockedError(
                    f"`{ends_with_us[0]}` is not installed",
                    hint="it is in util-linux: an emulated PC is for Linux",
                ) from error
        if child.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has ended: `wait` says why
                child.stdin.write(self.opening)
        return child

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return process.find(self._record, self.sign) is not None

    def wait(self, deadline: Deadline, hear: Hear | None = None) -> None:
        lines = bounds.LineSplitter(hear or (lambda _line: None))
        heard = 0

        def ended() -> bool | None:
            nonlocal heard
            over = not self.running()
            if sum(path.stat().st_size for path in self.logs if path.exists()) > self.most_log_bytes:
                raise self._inconclusive(f"writes without end (more than {self.most_log_bytes >> 20} MiB)")
            heard = self._listen(lines, heard)
            return over or None

        try:
            poll(ended, deadline, "the end of the emulated PC's work")
        except DeadlineError as error:
            raise DeadlineError(error.what, tail=self._last_words(), evidence=self.logs) from error
        lines.end()
        if why := self.trouble(self._child.poll() if self._child else None):
            raise self._inconclusive(f"ended on its own: {why}")

    def end(self) -> None:
        if self._child is not None:
            self._child.kill()
            try:
                self._child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise process.survived(self._child.pid) from error
            if self._child.stdin:
                self._child.stdin.close()
        else:
            # A script that becomes the emulator has children of its own for a moment.
            while running := process.find(self._record, self.sign):
                process.kill(running, self.sign)
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

    def _inconclusive(self, what: str) -> InconclusiveError:
        return InconclusiveError(f"the emulated PC {what}", tail=self._last_words(), evidence=self.logs)

    def _last_words(self) -> str:
        return proc.tail("\n".join(self.text(path.name) for path in self.logs))

    def text(self, name: str) -> str:
        """One of its files, bounded; empty where there is none."""
        path = self.spec.folder / name
        return bounds.read_text(path) if path.exists() else ""

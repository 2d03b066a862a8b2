"""Forwards of an attached machine: one `ssh -N -L` each, which outlives the command that started it.

One is known again by PID, start time and the lab's UUID among its words; never by its name alone.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from lab.core import files
from lab.core.deadline import Deadline, poll
from lab.core.errors import DeadlineError, LabError
from lab.core.files import open_private
from lab.core.proc import tail
from lab.engines.attached.way import MACHINE
from lab.engines.protocol import LOOPBACK, Forward, PortTakenError

_RECORD = "forwards.json"
_OPEN_SECONDS = 60.0
_END_SECONDS = 5.0
_START_TOLERANCE = 2.0
"""Seconds: the start time is computed from the boot time, which follows clock adjustments."""


class Forwards:
    """The forwards of one lab; `config` is lab's own ssh_config of the way there."""

    def __init__(self, folder: Path, config: Path, uuid: str) -> None:
        self._folder = folder
        self._config = config
        self._mark = f"SendEnv=LAB_{uuid}"  # of a variable that nobody sets: a mark among the words

    def open(self, forward: Forward) -> None:
        """Have this forward, in the place of one of its name. No-op when it is there.

        Raises PortTakenError when the port cannot be bound here, LabError when ssh does not open it.
        """
        if forward in self.all():
            return
        self.close(forward.name)
        log = self._folder / f"forward-{forward.name}.log"
        log.unlink(missing_ok=True)
        process = self._spawn(forward, log)

        def listens() -> bool | None:
            if process.poll() is not None:
                raise self._why_not(forward, log)
            return True if _listens(process.pid, forward.host_port) else None

        try:
            poll(listens, Deadline.after(_OPEN_SECONDS), f"the forward to {forward.name}", every=0.1)
        except BaseException:
            process.kill()
            process.wait()
            raise
        with contextlib.suppress(psutil.NoSuchProcess):
            self._remember(forward, process.pid, psutil.Process(process.pid).create_time())

    def close(self, name: str) -> None:
        """End the forward of that name, if there is one. Raises LabError when it survives."""
        for forward, process in self._running():
            if forward.name == name:
                _end(process)
        rows = self._rows()
        if rows.pop(name, None) is not None:
            files.write_json(self._folder / _RECORD, rows)

    def close_all(self) -> None:
        """End them all."""
        for forward, _ in list(self._running()):
            self.close(forward.name)
        (self._folder / _RECORD).unlink(missing_ok=True)

    def all(self) -> list[Forward]:
        """Those that run and listen."""
        return [forward for forward, process in self._running() if _listens(process.pid, forward.host_port)]

    def _spawn(self, forward: Forward, log: Path) -> subprocess.Popen[bytes]:
        ends = f"{LOOPBACK}:{forward.host_port}:{LOOPBACK}:{forward.guest_port}"
        words = ["ssh", "-F", str(self._config), "-N", "-T", "-o", "ExitOnForwardFailure=yes"]
        words += ["-o", self._mark, "-o", f"SendEnv=LAB_FORWARD_{forward.name}", "-L", ends, MACHINE]
        with open_private(log, "ab") as output:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _why_not(self, forward: Forward, log: Path) -> LabError:
        text = log.read_text(errors="replace") if log.exists() else ""
        if "ddress already in use" in text or "cannot listen to port" in text:
            return PortTakenError(
                f"port {forward.host_port} of the loopback cannot be bound",
                [forward.host_port],
                hint="another program has it; configure another port, or let lab choose one",
                tail=tail(text),
            )
        return LabError(
            f"ssh ended, and there is no forward to {forward.name} in the machine",
            hint="does its SSH server allow forwards (AllowTcpForwarding)? `invoke lab.ssh` logs in by hand",
            tail=tail(text),
        )

    def _remember(self, forward: Forward, pid: int, created: float) -> None:
        row = {"pid": pid, "created": created, "host": forward.host_port, "guest": forward.guest_port}
        files.write_json(self._folder / _RECORD, self._rows() | {forward.name: row})

    def _rows(self) -> dict[str, Any]:
        try:
            return files.read_object(self._folder / _RECORD)
        except (OSError, ValueError):
            return {}

    def _running(self) -> Iterator[tuple[Forward, psutil.Process]]:
        """Each forward with its process. One that a killed command did not record is found by its words."""
        known = self._rows()
        for name, row in known.items():
            with contextlib.suppress(psutil.Error, KeyError, TypeError, ValueError):
                process = psutil.Process(int(row["pid"]))
                same = abs(process.create_time() - float(row["created"])) <= _START_TOLERANCE
                forward = self._of(process)
                if same and forward is not None and forward.name == name:
                    yield forward, process
        pids = {row.get("pid") for row in known.values() if isinstance(row, dict)}
        for process in psutil.process_iter():
            if process.pid not in pids and (forward := self._of(process)) is not None:
                yield forward, process

    def _of(self, process: psutil.Process) -> Forward | None:
        """The forward that a process is, if it is one of this lab's."""
        try:
            words = process.cmdline()
            if self._mark not in words or Path(words[0]).name != "ssh" or process.status() == "zombie":
                return None
            name = next(word for word in words if word.startswith("SendEnv=LAB_FORWARD_"))
            _, host_port, _, guest_port = words[words.index("-L") + 1].split(":")
            return Forward(name.removeprefix("SendEnv=LAB_FORWARD_"), int(host_port), int(guest_port))
        except (psutil.Error, StopIteration, ValueError, IndexError):
            return None


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(
        item.status == psutil.CONN_LISTEN and item.laddr.port == port and item.laddr.ip == LOOPBACK
        for item in connections
    )


def _end(process: psutil.Process) -> None:
    for end in (process.terminate, process.kill):
        with contextlib.suppress(psutil.NoSuchProcess):
            end()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_END_SECONDS)
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return
    raise DeadlineError(f"the forward's process {process.pid} did not end when killed")

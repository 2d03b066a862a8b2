"""The process of a lab's adb server: started, found again, ended; no other is ever touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
from adbutils.errors import AdbError

from lab.adb.client import Client, adb_program
from lab.core import bounds, files, proc
from lab.core.deadline import Deadline, poll
from lab.core.errors import InconclusiveError, LabError
from lab.core.journal import Journal
from lab.engines.protocol import LOOPBACK
from lab.host import ports

_FIRST_PORT = 15037
_USERS_PORT = 5037
_ATTEMPTS = 3
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_START_TOLERANCE = 0.01
_KIND = "process"
_MARK = "LAB_ADB_FOLDER"
"""In the server's environment: it is known by its folder even when its start was cut off."""


_children: list[subprocess.Popen[bytes]] = []
"""Kept, so that a server that goes on running is no warning when its starter ends."""


class Server:
    """The adb server of one lab; its key, record and log are in `folder`.

    It outlives the command that started it.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder.absolute()
        self.journal = journal
        self._key = f"adb:{self.folder}"

    @property
    def record(self) -> Path:
        return self.folder / "server.json"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def port(self) -> int | None:
        """The port of the running server, else None."""
        return self._port() if self._process() else None

    def ensure(self) -> int:
        """Start the server unless it runs; its port. Raises LabError with adb's own words."""
        if self._process() and (port := self._port()) and self._answers(port):
            return port
        self.stop()
        # Its folder alone: the lab's own, which was destroyed, does not come back.
        self.folder.mkdir(mode=0o700, exist_ok=True)
        files.keep_private(self.folder)
        refused: set[int] = {_USERS_PORT}
        for _ in range(_ATTEMPTS):
            port = ports.free_port(_FIRST_PORT, refused)
            if self._start(port):
                return port
            refused.add(port)  # taken between the look and the start
        self.stop()
        log = bounds.read_text(self.log) if self.log.exists() else ""
        raise LabError("the adb server did not start", evidence=[self.log], tail=proc.tail(log))

    def stop(self) -> None:
        """End this lab's server and no other. No-op when there is none."""
        process = self._process()
        if process is not None:
            _end(process)
        self.record.unlink(missing_ok=True)
        if any(entry.key == self._key for entry in self.journal.entries(_KIND)):
            self.journal.gone(_KIND, self._key)

    def _start(self, port: int) -> bool:
        self.journal.intend(_KIND, self._key, folder=str(self.folder), port=port)
        files.write_json(self.record, {"port": port})
        with files.open_private(self.log, "ab") as log:
            child = subprocess.Popen(
                [adb_program(), "-L", f"tcp:{port}", "server", "nodaemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        _children.append(child)
        created = psutil.Process(child.pid).create_time()
        files.write_json(self.record, {"port": port, "pid": child.pid, "created": created})
        self.journal.done(_KIND, self._key, pid=child.pid)

        def up() -> bool | None:
            if child.poll() is not None:
                return False
            return True if self._answers(port) else None

        return poll(up, Deadline.after(_START_SECONDS), "the start of the adb server", every=0.05)

    def _environment(self) -> dict[str, str]:
        """The user's environment without anything that names another server or key."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_"))
        }
        home = str(self.folder)
        nothing_by_itself = {"ADB_EMU": "0", "ADB_MDNS": "0", "ADB_USB": "0"}
        return kept | nothing_by_itself | {"HOME": home, "TMPDIR": home, _MARK: home}

    def _answers(self, port: int) -> bool:
        try:
            return bool(Client(LOOPBACK, port).server_version())  # type: ignore[no-untyped-call]
        except (AdbError, OSError, ValueError):
            return False

    def _port(self) -> int | None:
        try:
            return int(self._read_record()["port"])
        except (LookupError, ValueError, TypeError):
            return None

    def _process(self) -> psutil.Process | None:
        """The server, by its record, else by its folder in some process's environment."""
        record = self._read_record()
        with contextlib.suppress(LookupError, ValueError, TypeError, OverflowError, psutil.Error):
            process = psutil.Process(int(record["pid"]))
            if abs(process.create_time() - float(record["created"])) <= _START_TOLERANCE and _runs(process):
                return process
        if self.folder.exists() or any(entry.key == self._key for entry in self.journal.entries(_KIND)):
            return next((candidate for candidate in psutil.process_iter() if self._is_mine(candidate)), None)
        return None

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if not process.name().startswith("adb"):
                return False
            return process.environ().get(_MARK) == str(self.folder) and _runs(process)
        except psutil.Error:
            return False

    def _read_record(self) -> dict[str, Any]:
        """What was noted of the server; nothing when the note is torn, or another program's."""
        try:
            return files.read_object(self.record)
        except ValueError:
            return {}


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _end(process: psutil.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                return
    if process.is_running():
        raise InconclusiveError(f"the adb server (pid {process.pid}) does not end")

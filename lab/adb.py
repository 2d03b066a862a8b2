"""ADB from the host: an adb server of the lab's own, on its own port, with a key of its own.

The user's server (port 5037) is never asked, started or stopped, and nothing is discovered: the
server knows only the addresses it is told to connect to.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import adbutils
import psutil
from adbutils.errors import AdbError

from lab import files, proc
from lab.deadline import Deadline, NotYet, poll
from lab.engines.protocol import LOOPBACK
from lab.errors import InconclusiveError, LabError
from lab.host import ports
from lab.journal import Journal

T = TypeVar("T")

_FIRST_PORT = 15037
_USERS_PORT = 5037
_ATTEMPTS = 3
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_ASK_SECONDS = 10.0
"""How long one question may take before it is asked again: a device may have gone stale."""
_START_TOLERANCE = 0.01
_KIND = "process"
_MARK = "LAB_ADB_FOLDER"
"""In the server's environment: it is known by its folder even when its start was cut off."""


_children: list[subprocess.Popen[bytes]] = []
"""Kept, so that a server that goes on running is no warning when its starter ends."""


class _Connection(adbutils.AdbConnection):
    """Without adbutils' habit of starting the user's server when nobody answers."""

    def _safe_connect(self):  # type: ignore[no-untyped-def]
        return self._create_socket()  # type: ignore[no-untyped-call]


class _Client(adbutils.AdbClient):
    def make_connection(self, timeout: float | None = None) -> adbutils.AdbConnection:
        connection = _Connection(self.host, self.port)
        connection.conn.settimeout(timeout or _ASK_SECONDS)
        return connection


class AdbServer:
    """The adb server of one lab; its key, record and log are in `folder`.

    It outlives the command that started it. Methods raise LabError when adb refuses,
    DeadlineError when it does not answer, InterruptedByUser when cancelled.
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

    @property
    def port(self) -> int | None:
        """The port of the running server, else None."""
        return self._port() if self._process() else None

    def ensure(self) -> int:
        """Start the server unless it runs; its port. Raises LabError with adb's own words."""
        if self._process() and (port := self._port()) and self._answers(port):
            return port
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        refused: set[int] = {_USERS_PORT}
        for _ in range(_ATTEMPTS):
            port = ports.free_port(_FIRST_PORT, refused)
            if self._start(port):
                return port
            refused.add(port)  # taken between the look and the start
        self.stop()
        raise LabError("the adb server did not start", evidence=[self.log], tail=proc.tail(self._said()))

    def stop(self) -> None:
        """End this lab's server and no other. No-op when there is none."""
        process = self._process()
        if process is not None:
            _end(process)
        self.record.unlink(missing_ok=True)
        if any(entry.key == self._key for entry in self.journal.entries(_KIND)):
            self.journal.gone(_KIND, self._key)

    def connect(self, address: str, deadline: Deadline) -> None:
        """Have the device at `address` (host:port) online; one gone stale is connected anew."""
        client = self._client()

        def online() -> bool:
            with _as_not_yet(address):
                state = _state(client, address)
                if state == "device":
                    return True
                if state:
                    client.disconnect(address)
                said = client.connect(address, timeout=min(_ASK_SECONDS, max(0.1, deadline.left)))
                if _state(client, address) == "device":
                    return True
                raise NotYet(said)

        poll(online, deadline, f"an ADB device at {address}", hint="`invoke lab.logs` shows its console")

    def shell(self, address: str, *argv: str, deadline: Deadline, seconds: float = _ASK_SECONDS) -> str:
        """What a command on the device prints, without trailing white space.

        A device that stops answering, or answers nothing for `seconds`, is connected anew until the deadline.
        """

        def ask(device: adbutils.AdbDevice, wait: float) -> str:
            return str(device.shell(list(argv), timeout=wait))

        return self._asked(address, ask, " ".join(argv), deadline, seconds)

    def output(self, address: str, *argv: str, deadline: Deadline, seconds: float = _ASK_SECONDS) -> bytes:
        """The bytes a command on the device prints, as they are; otherwise as `shell`."""

        def ask(device: adbutils.AdbDevice, wait: float) -> bytes:
            with device.open_transport(timeout=wait) as connection:
                connection.send_command(f"exec:{shlex.join(argv)}")
                connection.check_okay()
                return bytes(connection.read_until_close(encoding=None))

        return self._asked(address, ask, " ".join(argv), deadline, seconds)

    def state(self, address: str) -> tuple[str, str]:
        """One try, and no waiting: the device's state, and adb's words when it is not `device`.

        `offline`, `unauthorized`, …; empty when nothing answers there.
        """
        client = self._client()
        try:
            state = _state(client, address)
            if state == "device":
                return state, ""
            if state:
                client.disconnect(address)
            said = client.connect(address, timeout=_ASK_SECONDS)
            return _state(client, address), said.strip()
        except (AdbError, OSError, EOFError) as error:
            return "", str(error) or type(error).__name__

    def getprop(self, address: str, name: str, deadline: Deadline) -> str:
        """A property of the device; empty when it is unknown there."""
        return self.shell(address, "getprop", name, deadline=deadline).strip()

    def command(self, address: str, *argv: str, deadline: Deadline) -> list[str]:
        """The argument list of adb itself on a device that is online: for a person's terminal."""
        self.connect(address, deadline)
        return [adb_program(), "-P", str(self.ensure()), "-s", address, *argv]

    def disconnect(self, address: str) -> None:
        """Forget a device. No-op when it is not known."""
        if port := self.port:
            with contextlib.suppress(AdbError, OSError):
                _Client(LOOPBACK, port).disconnect(address)

    def _asked(
        self,
        address: str,
        ask: Callable[[adbutils.AdbDevice, float], T],
        what: str,
        deadline: Deadline,
        seconds: float,
    ) -> T:
        """What `ask` finds out of the device, given as many seconds as it may take."""
        client = self._client()

        def answer() -> T:
            self.connect(address, deadline)
            with _as_not_yet(address, lambda: client.disconnect(address)):
                return ask(client.device(address), max(0.1, min(seconds, deadline.left)))

        return poll(answer, deadline, f"an answer of the ADB device at {address} to `{what}`")

    def _client(self) -> _Client:
        return _Client(LOOPBACK, self.ensure())

    def _start(self, port: int) -> bool:
        self.journal.intend(_KIND, self._key, folder=str(self.folder), port=port)
        files.write_json(self.record, {"port": port})
        with self.log.open("ab") as log:
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
            return bool(_Client(LOOPBACK, port).server_version())  # type: ignore[no-untyped-call]
        except (AdbError, OSError, ValueError):
            return False

    def _port(self) -> int | None:
        record = self._read_record()
        return int(record["port"]) if "port" in record else None

    def _process(self) -> psutil.Process | None:
        """The server, by its record, else by its folder in some process's environment."""
        record = self._read_record()
        with contextlib.suppress(KeyError, psutil.Error):
            process = psutil.Process(int(record["pid"]))
            if abs(process.create_time() - record["created"]) <= _START_TOLERANCE and _runs(process):
                return process
        if any(entry.key == self._key for entry in self.journal.entries(_KIND)) or self.record.exists():
            return next((one for one in psutil.process_iter() if self._is_mine(one)), None)
        return None

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if not process.name().startswith("adb"):
                return False
            return process.environ().get(_MARK) == str(self.folder) and _runs(process)
        except psutil.Error:
            return False

    def _read_record(self) -> dict[str, float]:
        try:
            return dict(files.read_json(self.record) or {})
        except ValueError:
            return {}

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def adb_program() -> str:
    """adbutils' own adb: a known version; else the one on PATH. Raises LabError when there is none."""
    shipped = importlib.resources.files("adbutils") / "binaries" / "adb"
    if shipped.is_file():
        return str(shipped)
    try:
        return str(adbutils.adb_path())
    except AdbError as error:
        raise LabError("there is no adb program", hint="install Android's platform tools") from error


@contextlib.contextmanager
def _as_not_yet(address: str, then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """adb's refusals are reasons to ask again, until the deadline."""
    try:
        yield
    except (AdbError, OSError, EOFError) as error:
        with contextlib.suppress(AdbError, OSError):
            then()
        raise NotYet(f"{address}: {error or type(error).__name__}") from error


def _state(client: _Client, address: str) -> str:
    """`device`, `offline`, `unauthorized`, …; empty when the server does not know the address."""
    return next((one.state for one in client.list() if one.serial == address), "")


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

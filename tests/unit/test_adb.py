"""The lab's adb server: which process is ours, what it is told, what is never touched."""

from __future__ import annotations

import contextlib
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from adbutils.errors import AdbError

from lab.adb import AdbServer
from lab.adb.client import Client
from lab.core import deadline as clock
from lab.core import files
from lab.core.bounds import TooMuchError
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InterruptedByUser
from lab.core.journal import Journal


class Deaf(socketserver.StreamRequestHandler):
    """An adb server whose device is online, and takes no question: its VM stands still."""

    asked: ClassVar[list[str]] = []

    def handle(self) -> None:
        while length := self.rfile.read(4):
            words = self.rfile.read(int(length, 16)).decode()
            self.asked.append(words)
            if words == "host:version":
                self.wfile.write(b"OKAY00040029")
            elif words == "host:devices":
                self.wfile.write(b"OKAY%04x%s" % (len(DEVICES), DEVICES))
            elif words.startswith("host:tport"):
                self.wfile.write(b"OKAY" + bytes(8))
            elif words.startswith("host:disconnect"):
                self.wfile.write(b"OKAY0000")
            elif words.startswith(("shell:", "exec:")):
                self.talk()

    def talk(self) -> None:
        """The answer to a question."""


class Talking(Deaf):
    """An adb server whose device answers, and never comes to an end."""

    pause = 0.0

    def talk(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(b"OKAY")
            while True:
                self.wfile.write(b"talk " * (2 if self.pause else 10_000))
                time.sleep(self.pause)


class Dripping(Talking):
    """One that is never silent for long, and never says much."""

    pause = 0.05


DEVICES = b"127.0.0.1:1\tdevice\n"


@pytest.fixture
def deaf() -> Iterator[Client]:
    with speaking(Deaf) as client:
        yield client


@contextlib.contextmanager
def speaking(kind: type[Deaf]) -> Iterator[Client]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        Deaf.asked.clear()
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield Client(*listening.server_address)
        listening.shutdown()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with ADB."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def server(tmp_path: Path, client: Callable[[], Any] | None = None) -> AdbServer:
    return AdbServer(tmp_path / "adb", Journal(tmp_path / "journal"), client)


def test_environment_names_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANDROID_ADB_SERVER_PORT", "ADB_SERVER_SOCKET", "ADB_VENDOR_KEYS", "ANDROID_SERIAL"):
        monkeypatch.setenv(name, "5037")
    given = server(tmp_path)._environment()
    assert given["HOME"] == str(tmp_path / "adb")
    left = {name for name in given if name.startswith(("ADB_", "ANDROID_"))}
    assert left == {"ADB_EMU", "ADB_MDNS", "ADB_USB"} and all(given[name] == "0" for name in left)


def test_a_reused_pid_is_not_our_server(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    ours = server(tmp_path)
    created = psutil.Process(bystander.pid).create_time()
    files.write_json(ours.record, {"pid": bystander.pid, "created": created - 100, "port": 15037})
    assert ours.port() is None
    ours.stop()
    assert bystander.poll() is None and not ours.record.exists()


@pytest.mark.parametrize(
    "record",
    ['{"pid": 1', "[]", "null", '{"pid": "x", "created": 1}', '{"pid": 1, "created": []}', '{"port": []}'],
)
def test_stop_works_on_nothing_and_on_a_torn_record(tmp_path: Path, record: str) -> None:
    ours = server(tmp_path)
    ours.stop()
    ours.folder.mkdir()
    ours.record.write_text(record)
    assert ours._port() is None
    ours.journal.intend("process", f"adb:{ours.folder}", port=15037)
    ours.stop()
    assert not ours.record.exists() and ours.journal.entries("process") == []


def test_no_answer_never_starts_the_users_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda *words, **_: started.append(words))
    with pytest.raises(AdbError):
        Client("127.0.0.1", 1).server_version()  # type: ignore[no-untyped-call]
    assert started == []


def test_a_device_that_never_comes_ends_with_the_deadline(tmp_path: Path) -> None:
    class Refusing:
        def list(self) -> list[object]:
            return []

        def connect(self, address: str, timeout: float) -> str:
            return f"failed to connect to '{address}': Connection refused"

    ours = server(tmp_path, Refusing)
    with pytest.raises(DeadlineError, match="Connection refused"):
        ours.connect("127.0.0.1:1", Deadline.after(0.05))


@pytest.mark.parametrize("way", ["shell", "output"])
def test_a_device_that_takes_no_question_is_asked_again_and_ends_with_the_deadline(
    deaf: Client, tmp_path: Path, way: str
) -> None:
    ours = server(tmp_path, lambda: deaf)
    with pytest.raises(DeadlineError, match="an answer of the ADB device"):
        getattr(ours, way)("127.0.0.1:1", "echo", "a b", deadline=Deadline.after(1), seconds=0.2)
    service = {"shell": "shell", "output": "exec"}[way]
    assert Deaf.asked.count(f"{service}:echo 'a b'") > 1


@pytest.mark.parametrize("way", ["shell", "output"])
def test_a_device_that_goes_on_talking_ends_with_what_is_enough(tmp_path: Path, way: str) -> None:
    with speaking(Talking) as client, pytest.raises(TooMuchError):
        ours = server(tmp_path, lambda: client)
        getattr(ours, way)("127.0.0.1:1", "logcat", deadline=Deadline.after(60))


def test_a_device_that_drips_ends_with_the_deadline_and_when_cancelled(tmp_path: Path) -> None:
    with speaking(Dripping) as client:
        ours = server(tmp_path, lambda: client)
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            ours.shell("127.0.0.1:1", "logcat", deadline=Deadline.after(0.5))
        assert time.monotonic() - began < 5
        threading.Timer(0.3, clock.cancelled.set).start()
        try:
            with pytest.raises(InterruptedByUser):
                ours.shell("127.0.0.1:1", "logcat", deadline=Deadline.after(30))
        finally:
            clock.cancelled.clear()

"""The lab's adb server: which process is ours, what it is told, what is never touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from adbutils.errors import AdbError

from lab import adb, files
from lab.adb import AdbServer
from lab.deadline import Deadline
from lab.errors import DeadlineError
from lab.journal import Journal


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with ADB."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def server(tmp_path: Path) -> AdbServer:
    return AdbServer(tmp_path / "adb", Journal(tmp_path / "journal"))


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
    assert ours.port is None
    ours.stop()
    assert bystander.poll() is None and not ours.record.exists()


def test_stop_works_on_nothing_and_on_a_torn_record(tmp_path: Path) -> None:
    ours = server(tmp_path)
    ours.stop()
    ours.folder.mkdir()
    ours.record.write_text('{"pid": 1')
    ours.journal.intend("process", f"adb:{ours.folder}", port=15037)
    ours.stop()
    assert not ours.record.exists() and ours.journal.entries("process") == []


def test_no_answer_never_starts_the_users_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda *words, **_: started.append(words))
    with pytest.raises(AdbError):
        adb._Client("127.0.0.1", 1).server_version()  # type: ignore[no-untyped-call]
    assert started == []


def test_a_device_that_never_comes_ends_with_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def list(self) -> list[object]:
            return []

        def connect(self, address: str, timeout: float) -> str:
            return f"failed to connect to '{address}': Connection refused"

    ours = server(tmp_path)
    monkeypatch.setattr(ours, "_client", Refusing)
    with pytest.raises(DeadlineError, match="Connection refused"):
        ours.connect("127.0.0.1:1", Deadline.after(0.05))

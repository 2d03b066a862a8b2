"""Copies through lab.guest.ssh against a real sshd on the loopback."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import paramiko
import pytest

from lab.core import deadline as clock
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InterruptedByUser, LabError
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from tests.integration import sshserver
from tests.integration.sshserver import Server

pytestmark = pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)")


def test_put_and_get_report_progress_and_leave_no_part(guest: Guest, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    seen: list[tuple[int, int]] = []
    guest.put(source, str(there), lambda done, total: seen.append((done, total)))
    guest.get(str(there), back)
    assert back.read_bytes() == source.read_bytes()
    assert seen[-1] == (3_000_000, 3_000_000)
    assert len(seen) > 5
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    with pytest.raises(LabError, match="/no/such"):
        guest.get("/no/such/file", back)
    with pytest.raises(LabError, match="/no/such"):
        guest.put(source, "/no/such/folder/file")


def test_transfer_and_commands_share_one_connection(server: Server, guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(30_000_000))
    upload = threading.Thread(target=guest.put, args=(source, str(tmp_path / "copy")))
    guest.open()
    upload.start()
    answers = [guest.run(["echo", str(number)]).out for number in range(10)]
    upload.join()
    assert answers == [f"{number}\n" for number in range(10)]
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert len(server.children()) == 1


def test_a_file_that_says_to_be_huge_is_asked_for_in_parts(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole of a petabyte costs nobody anything; a list of its blocks would fill this host's memory."""
    asked: list[int] = []
    begin = paramiko.SFTPFile._start_prefetch
    monkeypatch.setattr(
        paramiko.SFTPFile,
        "_start_prefetch",
        lambda self, chunks, most: (asked.append(len(chunks)), begin(self, chunks, most)),
    )
    hole = tmp_path / "hole"
    with hole.open("wb") as stream:
        stream.truncate(8 << 30)
    with pytest.raises(DeadlineError):
        guest.get(str(hole), tmp_path / "copy", deadline=Deadline.after(3))
    assert asked and max(asked) < 1000


def test_a_file_that_tells_no_size_or_grows_is_copied_as_it_is_now(guest: Guest, tmp_path: Path) -> None:
    guest.get("/proc/version", tmp_path / "version")
    assert (tmp_path / "version").read_text() == Path("/proc/version").read_text()
    guest.get("/dev/zero", tmp_path / "zero")
    assert (tmp_path / "zero").stat().st_size == 16 << 20
    log, stop = tmp_path / "log", threading.Event()
    log.write_bytes(b"x" * 3_000_000)

    def grow() -> None:
        with log.open("ab") as stream:
            while not stop.is_set():
                stream.write(b"y" * 100_000)
                time.sleep(0.01)

    writer = threading.Thread(target=grow, daemon=True)
    writer.start()
    try:
        guest.get(str(log), tmp_path / "copy", deadline=Deadline.after(30))
    finally:
        stop.set()
        writer.join()
    assert 3_000_000 <= (tmp_path / "copy").stat().st_size <= log.stat().st_size


def test_an_sftp_server_that_answers_what_nobody_asked_is_given_up(server: Server, tmp_path: Path) -> None:
    """SFTP packets: length, kind, then for the version (2) its number, for a status (101) the question's."""
    talking = tmp_path / "sftp"
    talking.write_text(
        f"#!{sys.executable}\nimport os\n"
        "os.write(1, bytes([0, 0, 0, 5, 2, 0, 0, 0, 3]))\n"
        "while True: os.write(1, bytes([0, 0, 0, 9, 101, 0, 0, 99, 99, 0, 0, 0, 0]) * 1000)\n"
    )
    talking.chmod(0o755)
    server.stop()
    server.sftp = str(talking)
    server.start()
    wait_for_ssh(server.guest, Deadline.after(20), lambda: None).close()
    with server.guest() as guest:
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            guest.get("/etc/hostname", tmp_path / "copy", deadline=Deadline.after(2))
        assert time.monotonic() - began < 15
        threading.Timer(1.0, clock.cancelled.set).start()
        try:
            with pytest.raises(InterruptedByUser):
                guest.get("/etc/hostname", tmp_path / "copy", deadline=Deadline.after(60))
        finally:
            clock.cancelled.clear()
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / "copy").exists()


@pytest.mark.parametrize("part", ["cut short", "whole", "another", "longer", "none"])
def test_a_copy_that_was_cut_short_is_gone_on_with(guest: Guest, tmp_path: Path, part: str) -> None:
    content = os.urandom(1_000_000)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    parts = {"cut short": content[:400_000], "whole": content, "another": bytes(400_000)}
    parts |= {"longer": content + b"x"}
    if part in parts:
        target.with_name("target.part").write_bytes(parts[part])
    notes: list[tuple[int, int]] = []
    guest.put(source, str(target), lambda done, total: notes.append((done, total)), resume=True)
    assert target.read_bytes() == content
    first = {"cut short": 432_768, "whole": None}.get(part, 32_768)
    assert (notes[0][0] if notes else None) == first
    assert not list(tmp_path.glob("*.part"))

"""What comes from outside is read only so far and so long."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lab.core import bounds, proc
from lab.core import deadline as clock
from lab.core.bounds import Kept, Limits, LineSplitter, TooMuchError, Watched
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InterruptedByUser
from lab.records.evidence import Run


@pytest.fixture(autouse=True)
def _not_cancelled() -> Iterator[None]:
    yield
    clock.cancelled.clear()


@given(some.lists(some.text("ab\n", max_size=40).map(str.encode)), some.integers(2, 60))
def test_a_text_is_whole_or_says_what_is_missing(chunks: list[bytes], limit: int) -> None:
    kept = Kept(limit)
    for chunk in chunks:
        kept.add(chunk)
    came = b"".join(chunks)
    if len(came) <= limit - limit % 2:
        assert kept.text == came.decode()
        return
    head, mark, rest = kept.text.partition("[lab: ")
    left_out, _, tail = rest.partition(" bytes were left out here]\n")
    assert mark and came.decode().startswith(head) and came.decode().endswith(tail)
    assert int(left_out) == len(came) - len(head) - len(tail)
    assert len(head) + len(tail) <= limit


@given(some.lists(some.sampled_from([b"a\n", b"bc", b"\n", b"\r\n", b"d\ne"])))
def test_lines_are_told_once_whatever_pieces_they_come_in(chunks: list[bytes]) -> None:
    heard: list[str] = []
    lines = LineSplitter(heard.append)
    for chunk in chunks:
        lines.add(chunk)
    lines.end()
    whole = b"".join(chunks).decode().replace("\r\n", "\n")
    assert heard == (whole.removesuffix("\n").split("\n") if whole else [])


def test_a_line_without_an_end_is_told_in_pieces() -> None:
    heard: list[str] = []
    lines = LineSplitter(heard.append)
    for _ in range(40):
        lines.add(b"x" * 10_000)
    lines.end()
    assert sum(map(len, heard)) == 400_000
    assert max(map(len, heard)) <= bounds.LINE_BYTES


@given(some.binary(max_size=90), some.integers(0, 50), some.integers(2, 60))
def test_a_file_is_read_as_a_stream_is(content: bytes, start: int, limit: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        kept = Kept(limit)
        kept.add(content[start:])
        assert bounds.read_text(Path(file.name), start, limit) == kept.text


_FOR_EVER = "import sys\nwhile True: sys.stdout.write('talk ' * 2000)"


def test_a_command_that_prints_for_ever_fills_neither_memory_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "_LOG_CHARACTERS", 1 << 20)
    most: list[int] = []

    class Small(Kept):
        def __init__(self) -> None:
            super().__init__(1 << 16)

        def add(self, chunk: bytes) -> None:
            super().add(chunk)
            most.append(len(self._head) + len(self._tail))

    monkeypatch.setattr(proc, "Kept", Small)
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        proc.run([sys.executable, "-c", _FOR_EVER], deadline=Deadline.after(1), log=tmp_path / "log")
    assert time.monotonic() - began < 8
    assert max(most) <= 3 << 15
    log = (tmp_path / "log").read_text()
    assert len(log) < 2 << 20 and log.endswith("[lab: the rest is left out]\n")


def test_the_ends_of_a_long_output_are_kept() -> None:
    script = "print('first'); print('x\\n' * 10_000_000); print('last')"
    out = proc.run([sys.executable, "-c", script]).out
    assert out.startswith("first\n") and out.endswith("last\n")
    assert " bytes were left out here]\n" in out and len(out) <= bounds.TEXT_BYTES + 100


def test_a_console_log_of_any_size_is_kept_by_its_ends(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("wb") as stream:
        stream.write(b"first\n")
        stream.seek(20 << 30)  # a hole: it takes no room
        stream.write(b"\nlast\n")
    run = Run(tmp_path / "evidence", "x", "up")
    assert run.collect({"console.log": lambda: log}) == ["console.log"]
    text = (run.path / "console.log").read_text()
    assert text.startswith("first\n") and text.endswith("last\n") and "were left out here" in text


@pytest.fixture
def talker() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _watched(plain: socket.socket, seconds: float = 60, limit: int = 1 << 20) -> Watched:
    limits = Limits(Deadline.after(seconds), limit)
    return Watched(plain, lambda: limits)


def test_a_connection_is_read_up_to_its_limit(talker: tuple[socket.socket, socket.socket]) -> None:
    plain, theirs = talker
    theirs.send(b"x" * 100)
    watched = _watched(plain, limit=50)
    with pytest.raises(TooMuchError):
        while watched.recv(10):
            pass


def test_a_connection_that_never_falls_silent_ends_with_its_deadline(
    talker: tuple[socket.socket, socket.socket],
) -> None:
    plain, theirs = talker
    theirs.send(b"x")
    watched = _watched(plain, seconds=0.3)
    with pytest.raises(TimeoutError):
        while watched.recv(1):
            theirs.send(b"x")


def test_a_connection_that_is_silent_ends_with_its_timeout_and_when_cancelled(
    talker: tuple[socket.socket, socket.socket],
) -> None:
    plain, theirs = talker
    plain.settimeout(0.2)
    watched = _watched(plain)
    with pytest.raises(TimeoutError):
        watched.recv(1)
    theirs.send(b"ab\n")
    with watched.makefile("rb") as stream:
        assert stream.readline() == b"ab\n"
    watched.settimeout(None)
    threading.Timer(0.3, clock.cancelled.set).start()
    with pytest.raises(InterruptedByUser):
        watched.recv(1)

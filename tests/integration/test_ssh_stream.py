"""A command on this process's own standard streams, as lab.exec runs it, against a real sshd."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration import sshserver
from tests.integration.sshserver import STUBBORN, Server, eventually, gone, started
from tests.unit.terminal import environment, on_terminal

pytestmark = pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)")


STREAM = """\
import sys
from pathlib import Path
from lab.cli import streams
streams.prepare()
from lab.cli import perform
from lab.workflow.session import Reply
from lab.core.deadline import Deadline
from lab.guest.ssh import Guest
port, user, key, hosts, seconds, *words = sys.argv[1:]
def command(session):
    guest = Guest(port=int(port), user=user, key=Path(key), known_hosts=Path(hosts))
    return Reply(code=guest.stream(words, Deadline.after(float(seconds))))
perform.perform(command)
"""


def _stream_words(server: Server, *words: str, seconds: float = 60.0) -> list[str]:
    given = [server.port, getpass.getuser(), server.key, server.known_hosts, seconds, *words]
    return [sys.executable, "-c", STREAM, *map(str, given)]


def _streaming(server: Server, *words: str, seconds: float = 60.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _stream_words(server, *words, seconds=seconds),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_stream_passes_input_output_and_status_on_as_bytes(server: Server) -> None:
    """Large, and not one of them text: nothing is lost, and nothing is changed."""
    sent = os.urandom(3_000_000)
    process = _streaming(server, "sh", "-c", "cat; printf 'no\\377' >&2; exit 7")
    out, err = process.communicate(sent, timeout=60)
    assert (out == sent, err, process.returncode) == (True, b"no\xff", 7)


def test_stream_shows_output_while_the_command_still_wants_input(server: Server) -> None:
    process = _streaming(server, "sh", "-c", "echo who; read name; echo hello $name")
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"who\n"
    process.stdin.write(b"lab\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hello lab\n"
    assert process.wait(timeout=20) == 0, "the end of the command is the end, whatever input is left"
    process.communicate()


def test_stream_on_a_terminal_takes_what_is_typed(server: Server, tmp_path: Path) -> None:
    words = _stream_words(server, "sh", "-c", "echo who; read name; echo hello $name; exit 3")
    seen = on_terminal(words, environment(tmp_path), (b"who", b"lab\n"))
    assert (seen.lines[:3], seen.code) == (["who", "lab", "hello lab"], 3), seen.raw


def test_stream_in_the_background_of_a_shell_is_not_stopped_for_its_input(
    server: Server, tmp_path: Path
) -> None:
    words = _stream_words(server, "sh", "-c", "sleep 1; echo done")
    script = '"$@" & wait $!; echo "code $?"'
    seen = on_terminal(["bash", "-mc", script, "sh", *words], environment(tmp_path))
    assert "done" in seen.lines and "code 0" in seen.lines, seen.raw


def test_stream_does_not_wait_for_a_background_child(server: Server) -> None:
    process = _streaming(server, "sh", "-c", "sleep 30 & echo done")
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"done\n", 0)


def test_stream_loses_nothing_to_a_reader_that_takes_its_time(server: Server) -> None:
    process = _streaming(server, "head", "-c", "3000000", "/dev/zero")
    time.sleep(4)  # over there it ends long before its output is taken
    assert len(process.communicate(timeout=30)[0]) == 3_000_000


def test_stream_of_a_command_that_was_killed_ends_with_255(server: Server) -> None:
    process = _streaming(server, "sh", "-c", "kill -9 $PPID")
    assert process.communicate(timeout=20)[0] == b"" and process.returncode == 255


@pytest.mark.parametrize("by", ["deadline", "signal"])
def test_stream_ends_the_command_over_there_too(server: Server, tmp_path: Path, by: str) -> None:
    note = tmp_path / "pid"
    process = _streaming(server, "sh", "-c", STUBBORN, str(note), seconds=4 if by == "deadline" else 60)
    pid = started(note)
    if by == "signal":
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (12 if by == "deadline" else 130), err
    eventually(lambda: gone(pid))


def test_stream_whose_reader_went_away_ends_the_command_over_there_too(
    server: Server, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    process = _streaming(server, "sh", "-c", 'echo $$ > "$0"; exec yes', str(note))
    assert process.stdout and process.stdout.read(9) == b"y\ny\ny\ny\ny"
    process.stdout.close()
    pid = started(note)
    assert process.wait(timeout=20) == 0
    eventually(lambda: gone(pid))


def test_stream_of_a_vm_that_goes_says_so(server: Server) -> None:
    process = _streaming(server, "sh", "-c", "echo on; sleep 30")
    assert process.stdout and process.stdout.readline() == b"on\n"
    server.stop()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and b"the connection to the VM broke" in err

"""Commands through lab.guest.ssh against a real sshd on the loopback."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from lab.core import deadline as clock
from lab.core.deadline import Deadline
from lab.core.errors import CommandError, DeadlineError, InterruptedByUser, LabError
from lab.guest.connection import GuestConnection
from lab.guest.login import (
    AuthRefusedError,
    ConnectionLostError,
    HostKeyError,
    UnreachableError,
)
from lab.guest.runner import BoundedRunner, Captured
from lab.guest.ssh import Guest, ssh_command
from lab.guest.waiting import wait_for_ssh
from tests.integration import sshserver
from tests.integration.sshserver import STUBBORN, Server, eventually, gone, keygen, slow, started

pytestmark = pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)")


def test_command_gets_its_words_input_and_locale_and_gives_both_streams_and_status(guest: Guest) -> None:
    script = 'cat; printf "%s|" "$@" "$LC_ALL"; echo oops >&2; exit 3'
    done = guest.run(["sh", "-c", script, "sh", "a b", "$HOME;'x\""], stdin="in\n", check=False)
    assert (done.out, done.err, done.status) == ("in\na b|$HOME;'x\"|C.UTF-8|", "oops\n", 3)


def test_failing_command_raises_with_status_and_tail(guest: Guest) -> None:
    with pytest.raises(CommandError) as caught:
        guest.run(["ls", "/no/such/place"])
    assert caught.value.status == 2
    assert "/no/such/place" in caught.value.tail
    with pytest.raises(CommandError) as caught:
        guest.run(["sh", "-c", "kill -KILL $$"])
    assert caught.value.status != 0


def test_large_input_and_output_pass_unharmed(guest: Guest) -> None:
    text = "0123456789abcde\n" * 200_000
    lines: list[str] = []
    assert guest.run(["cat"], stdin=text, on_line=lines.append).out == text
    assert len(lines) == 200_000
    assert set(lines) == {"0123456789abcde"}


def test_background_child_holding_the_output_does_not_hold_the_caller(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "sleep 4 & echo up"], deadline=Deadline.after(3.9))
    assert done.out == "up\n"


def test_changed_host_key_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other_hosts"
    other.write_text(f"lab-vm {keygen(tmp_path / 'other').with_suffix('.pub').read_text()}")
    asked = []

    def alive() -> None:
        asked.append(1)

    with pytest.raises(HostKeyError, match="not this lab's"):
        wait_for_ssh(lambda: server.guest(known_hosts=other), Deadline.after(60), alive)
    assert len(asked) == 1, "it must not try again"


def test_host_that_is_not_pinned_is_refused(server: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(LabError, match="pins no host key"):
        server.guest(known_hosts=empty).open()


def test_refused_key_is_named_and_retried_until_the_deadline(server: Server, tmp_path: Path) -> None:
    wrong = keygen(tmp_path / "wrong")
    with pytest.raises(AuthRefusedError):
        server.guest(key=wrong).open()
    with pytest.raises(DeadlineError, match="refuses the lab's key"):
        wait_for_ssh(lambda: server.guest(key=wrong), Deadline.after(2), lambda: None)


def test_key_accepted_later_logs_in(server: Server) -> None:
    authorized = server.folder / "authorized"
    content = authorized.read_text()
    authorized.write_text("")
    threading.Timer(1.0, authorized.write_text, [content]).start()
    with wait_for_ssh(server.guest, Deadline.after(30), lambda: None) as guest:
        assert guest.run(["true"]).status == 0


def test_wait_says_what_it_met(tmp_path: Path) -> None:
    closed = Server(tmp_path)
    with pytest.raises(DeadlineError, match="port is closed"):
        wait_for_ssh(closed.guest, Deadline.after(0.6), lambda: None)
    with pytest.raises(UnreachableError, match="nothing listens"):
        closed.guest().run(["true"])
    silent = socket.create_server(("127.0.0.1", closed.port))
    with silent, pytest.raises(DeadlineError, match="no SSH server has greeted"):
        wait_for_ssh(closed.guest, Deadline.after(1.5), lambda: None)


def test_dead_vm_ends_the_wait_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="out of memory") as caught:
        wait_for_ssh(Server(tmp_path).guest, Deadline.after(60), lambda: "out of memory")
    assert not isinstance(caught.value, DeadlineError)


def test_server_that_comes_late_is_found_past_silent_connections(tmp_path: Path) -> None:
    """A booting VM's forward accepts connections that are never answered."""
    server = Server(tmp_path)
    silent = socket.create_server(("127.0.0.1", server.port))

    def become_real() -> None:
        silent.close()
        server.start()

    timer = threading.Timer(1.2, become_real)
    timer.start()
    try:
        with wait_for_ssh(server.guest, Deadline.after(30), lambda: None) as guest:
            assert guest.run(["echo", "hi"]).out == "hi\n"
    finally:
        timer.join()
        server.stop()


def test_deadline_ends_the_command_over_there_too(guest: Guest, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(DeadlineError, match="did not end"):
        guest.run(["sh", "-c", STUBBORN, str(note)], deadline=Deadline.after(1.5))
    pid = started(note)
    eventually(lambda: gone(pid))
    assert guest.run(["echo", "still here"]).out == "still here\n"


def test_interruption_ends_the_command_over_there_too(guest: Guest, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    threading.Timer(1.0, clock.cancelled.set).start()
    try:
        with pytest.raises(InterruptedByUser):
            guest.run(["sh", "-c", 'echo $$ > "$0"; sleep 60', str(note)])
    finally:
        clock.cancelled.clear()
    pid = started(note)
    eventually(lambda: gone(pid))


def test_read_and_exists(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    assert guest.read(str(tmp_path / "a")) == "x\n"
    assert guest.exists(str(tmp_path / "a"))
    assert not guest.exists(str(tmp_path / "b"))


def test_connection_lost_midway_says_so_and_the_next_command_reconnects(server: Server) -> None:
    with server.guest() as guest:
        guest.open()
        threading.Timer(0.7, server.stop).start()
        with pytest.raises(ConnectionLostError):
            guest.run(["sleep", "5"], deadline=Deadline.after(30))
        server.start()
        wait_for_ssh(server.guest, Deadline.after(20), lambda: None).close()
        assert guest.run(["echo", "back"]).out == "back\n"


@pytest.mark.parametrize("folder", [".", "Application Support", "100%h of it"])
def test_printed_ssh_command_works_in_a_terminal(
    server: Server, guest: Guest, tmp_path: Path, folder: str
) -> None:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    key = Path(shutil.copy2(guest.key, place / "key"))
    known_hosts = Path(shutil.copy2(guest.known_hosts, place / "hosts"))
    line = shlex.join([*ssh_command(server.guest(key=key, known_hosts=known_hosts)), "echo", "pasted"])
    # As a person pastes it.
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.stdout == "pasted\n", done.stderr
    other = tmp_path / "other_hosts"
    other.write_text(f"lab-vm {keygen(tmp_path / 'other').with_suffix('.pub').read_text()}")
    argv = [*ssh_command(server.guest(known_hosts=other)), "-o", "BatchMode=yes", "true"]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 255
    assert "verification failed" in refused.stderr


# --- What never ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["yes"],
        ["sh", "-c", "yes >&2"],
        ["sh", "-c", "tr '\\0' x </dev/zero"],  # not one line
    ],
)
def test_a_command_that_talks_for_ever_ends_with_its_deadline_and_fills_no_memory(
    guest: Guest, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Small] = []

    class Small(Captured):
        def __init__(self, on_line: Callable[[str], None] | None) -> None:
            super().__init__(on_line)
            self._half = 1 << 15
            kept.append(self)

    monkeypatch.setattr("lab.guest.runner.Captured", Small)
    guest.open()
    longest = 0

    def hear(line: str) -> None:
        nonlocal longest
        longest = max(longest, len(line))

    began = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        guest.run(words, deadline=Deadline.after(1.5), on_line=hear)
    assert time.monotonic() - began < 20
    assert caught.value.tail and longest <= 1 << 16
    assert len(kept) == 2
    assert max(len(one._head) + len(one._tail) for one in kept) < 1 << 18
    assert guest.run(["echo", "there"]).out == "there\n", "it answers afterwards"


def test_a_command_that_talks_for_ever_ends_when_cancelled(guest: Guest) -> None:
    guest.open()
    threading.Timer(1.0, clock.cancelled.set).start()
    try:
        with pytest.raises(InterruptedByUser):
            guest.run(["yes"], deadline=Deadline.after(60))
    finally:
        clock.cancelled.clear()


def test_a_child_that_is_left_behind_and_talks_does_not_hold_the_caller(guest: Guest) -> None:
    script = "echo up; timeout 6 yes & exit 3"
    began = time.monotonic()
    done = guest.run(["sh", "-c", script], deadline=Deadline.after(60), check=False)
    assert done.status == 3 and done.out.startswith("up\n") and time.monotonic() - began < 5


def test_of_a_long_answer_the_ends_are_kept(guest: Guest) -> None:
    out = guest.run(["seq", "3000000"]).out
    assert out.startswith("1\n2\n") and out.endswith("\n3000000\n")
    assert "bytes were left out here]\n" in out and len(out) < 17 << 20


# --- Slow, frozen, many --------------------------------------------------------------------------


def test_a_slow_link_cuts_no_output_off(server: Server) -> None:
    """The exit status overtakes what the server still holds back."""
    with slow(server.port, 3_000_000) as port:
        guest = Guest(port=port, user=getpass.getuser(), key=server.key, known_hosts=server.known_hosts)
        with guest:
            done = guest.run(["head", "-c", "8000000", "/dev/zero"], deadline=Deadline.after(60))
    assert (len(done.out), done.status) == (8_000_000, 0)


def test_what_is_cancelled_before_its_pid_was_heard_is_ended_over_there_too(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    monkeypatch.setattr(BoundedRunner, "_receive", lambda _: 0)  # a busy machine has not come to it

    def cancel() -> None:
        started(note)
        clock.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(InterruptedByUser):
            guest.run(["sh", "-c", STUBBORN, str(note)], deadline=Deadline.after(60))
    finally:
        thread.join()
        clock.cancelled.clear()
    eventually(lambda: gone(started(note)))


@pytest.fixture
def freezing(server: Server, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    """A guest whose server stands still from the moment in which a command is to begin."""
    open_channel = GuestConnection.channel
    frozen: list[int] = []

    def freeze(connection: GuestConnection, deadline: Deadline) -> paramiko.Channel:
        channel = open_channel(connection, deadline)
        frozen.extend(server.children())
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        return channel

    guest.open()
    monkeypatch.setattr(GuestConnection, "channel", freeze)
    yield guest
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_freezes_when_it_is_to_begin_ends_with_the_deadline(freezing: Guest) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="did not end"):
        freezing.run(["true"], deadline=Deadline.after(1.5))
    assert time.monotonic() - began < 10


def test_ctrl_c_reaches_a_command_that_is_to_begin_then_in_whatever_thread(freezing: Guest) -> None:
    errors: list[BaseException] = []

    def begin() -> None:
        try:
            freezing.run(["true"], deadline=Deadline.after(60))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    time.sleep(1)
    clock.cancelled.set()
    try:
        thread.join(20)
        assert not thread.is_alive()
    finally:
        clock.cancelled.clear()
    assert isinstance(errors[0], InterruptedByUser)


def test_many_threads_share_it_and_leave_none_behind(guest: Guest, tmp_path: Path) -> None:
    guest.open()
    before = set(threading.enumerate())
    copied = tmp_path / "copied"

    def work(number: int) -> str:
        answer = guest.run(["cat"], stdin=f"{number}", on_line=lambda _: None).out
        guest.put(Path(__file__), f"{copied}-{number}")
        guest.get(f"{copied}-{number}", tmp_path / f"back-{number}")
        with pytest.raises(DeadlineError):
            guest.run(["sleep", "9"], deadline=Deadline.after(0.5))
        return answer

    with ThreadPoolExecutor(4) as pool:  # OpenSSH lets a connection have ten sessions at once (MaxSessions)
        assert list(pool.map(work, range(8))) == [str(number) for number in range(8)]
    eventually(lambda: set(threading.enumerate()) <= before)


def test_what_the_user_set_for_fabric_changes_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither files nor the environment: they could say to run nothing, to print all, to be somebody else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = (
        '{"run": {"dry": true, "echo": true, "pty": true}, "sudo": {"user": "nobody"}, "user": "nobody"}'
    )
    for name in (".fabric.json", ".invoke.json", "fabric.json"):
        (tmp_path / name).write_text(settings)
    for name in ("RUN_DRY", "RUN_ECHO", "RUN_PTY", "SUDO_USER"):
        monkeypatch.setenv(f"FABRIC_{name}", "1")
        monkeypatch.setenv(f"INVOKE_{name}", "1")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  User nobody\n  ProxyCommand false\n")
    with server.guest() as guest:
        assert guest.run(["echo", "ran"]).out == "ran\n"
    assert capfd.readouterr() == ("", "")


def test_a_handler_of_the_terminals_size_stays(guest: Guest) -> None:
    """Fabric's own runner resets it after each command."""
    mine = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        handler = signal.getsignal(signal.SIGWINCH)
        guest.run(["true"])
        assert signal.getsignal(signal.SIGWINCH) is handler
    finally:
        signal.signal(signal.SIGWINCH, mine)


def test_output_in_pieces_is_one_text(guest: Guest) -> None:
    """A character may come in two pieces, and the line with the process's number after other errors."""
    script = r"printf '\303'; sleep 0.3; printf '\244\n'; printf 'a\nlab-pid 7\n' >&2"
    lines: list[str] = []
    done = guest.run(["sh", "-c", script], on_line=lines.append)
    assert (done.out, done.err) == ("ä\n", "a\nlab-pid 7\n"), "only the first such line is lab's"
    assert sorted(lines) == ["a", "lab-pid 7", "ä"]

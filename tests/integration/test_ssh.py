"""lab.guest.ssh against a real sshd on the loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from lab import deadline as clock
from lab.deadline import Deadline
from lab.errors import CommandError, DeadlineError, InterruptedByUser, LabError
from lab.guest import adopt
from lab.guest.login import (
    AuthRefusedError,
    ConnectionLostError,
    HostKeyError,
    LockedKeyError,
    UnreachableError,
)
from lab.guest.runner import Captured
from lab.guest.ssh import Guest, ssh_command
from lab.guest.waiting import wait_for_ssh
from tests.unit.terminal import environment, on_terminal

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
SFTP = "internal-sftp"
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd here (package openssh-server)")


class Server:
    """An sshd with keys of its own, which may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = _keygen(folder / "user")
        self.host_key = _keygen(folder / "host")
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"lab-vm {(folder / 'host.pub').read_text()}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.host_key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder / 'authorized'}\nStrictModes no\n"
            f"PasswordAuthentication no\nSubsystem sftp {SFTP}\n"
        )
        assert SSHD
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(config)], stderr=log, start_new_session=True
            )

    def children(self) -> list[int]:
        assert self.process
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def stop(self) -> None:
        """As when the VM is gone: no listener, no session."""
        if self.process:
            for pid in [*self.children(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def guest(self, **other: Path) -> Guest:
        paths = {"key": self.key, "known_hosts": self.known_hosts} | other
        return Guest(port=self.port, user=getpass.getuser(), **paths)


def _keygen(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    wait_for_ssh(server.guest, Deadline.after(20), lambda: None).close()
    yield server
    server.stop()


@pytest.fixture
def guest(server: Server) -> Iterator[Guest]:
    with server.guest() as guest:
        yield guest


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
    other.write_text(f"lab-vm {_keygen(tmp_path / 'other').with_suffix('.pub').read_text()}")
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
    wrong = _keygen(tmp_path / "wrong")
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


def _gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True


def _started(path: Path) -> int:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the command did not start")


def _eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not check() and time.monotonic() < until:
        time.sleep(0.05)
    assert check()


STUBBORN = 'trap "" TERM; echo $$ > "$0"; while :; do sleep 1; done'


def test_deadline_ends_the_command_over_there_too(guest: Guest, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(DeadlineError, match="did not end"):
        guest.run(["sh", "-c", STUBBORN, str(note)], deadline=Deadline.after(1.5))
    pid = _started(note)
    _eventually(lambda: _gone(pid))
    assert guest.run(["echo", "still here"]).out == "still here\n"


def test_interruption_ends_the_command_over_there_too(guest: Guest, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    threading.Timer(1.0, clock.cancelled.set).start()
    try:
        with pytest.raises(InterruptedByUser):
            guest.run(["sh", "-c", 'echo $$ > "$0"; sleep 60', str(note)])
    finally:
        clock.cancelled.clear()
    pid = _started(note)
    _eventually(lambda: _gone(pid))


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


def test_read_and_exists(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    assert guest.read(str(tmp_path / "a")) == "x\n"
    assert guest.exists(str(tmp_path / "a"))
    assert not guest.exists(str(tmp_path / "b"))


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
    other.write_text(f"lab-vm {_keygen(tmp_path / 'other').with_suffix('.pub').read_text()}")
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
        guest.get(str(hole), tmp_path / "copy", deadline=Deadline.after(0.5))
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

    writer = threading.Thread(target=grow, daemon=True)
    writer.start()
    try:
        guest.get(str(log), tmp_path / "copy", deadline=Deadline.after(30))
    finally:
        stop.set()
        writer.join()
    assert 3_000_000 <= (tmp_path / "copy").stat().st_size <= log.stat().st_size


@pytest.mark.parametrize("piece", [b"a line before the version\r\n", b"no line at all "])
def test_a_greeting_without_an_end_is_given_up(
    server: Server, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking(lambda _: iter(lambda: piece, b"")) as port:
        fake = Guest(port=port, user="x", key=server.key, known_hosts=server.known_hosts)
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            fake.open()
        with pytest.raises(UnreachableError):
            adopt.host_key(port, Deadline.after(20))
        with pytest.raises(DeadlineError, match="answers, but not with SSH"):
            wait_for_ssh(lambda: fake, Deadline.after(1), lambda: None)
        assert time.monotonic() - began < 15


def test_a_packet_of_any_length_is_not_waited_for(server: Server) -> None:
    def flood(_: bytes) -> Iterator[bytes]:
        yield b"SSH-2.0-Flood\r\n" + (0x7FFFFFF4).to_bytes(4, "big")
        while True:
            yield b"x" * 65536

    with speaking(flood) as port:
        fake = Guest(port=port, user="x", key=server.key, known_hosts=server.known_hosts)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="packet of"):
            fake.open()
        assert time.monotonic() - began < 10


def test_lines_before_the_version_are_read_over(server: Server) -> None:
    """RFC 4253, 4.2: a server may send other lines before it."""
    with before(server.port, b"Welcome to this machine.\r\nSSH is spoken here\r\n") as port:
        guest = Guest(port=port, user=getpass.getuser(), key=server.key, known_hosts=server.known_hosts)
        with wait_for_ssh(lambda: guest, Deadline.after(20), lambda: None):
            assert guest.run(["true"]).status == 0
        kind, key = server.host_key.with_suffix(".pub").read_text().split()[:2]
        assert adopt.host_key(port, Deadline.after(20)) == f"{kind} {key}"


@contextlib.contextmanager
def speaking(speak: Callable[[bytes], Iterator[bytes]]) -> Iterator[int]:
    """The port of a server that says this to whoever comes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                for piece in speak(b""):
                    self.request.sendall(piece)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads, listening.block_on_close = True, False
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield int(listening.server_address[1])
        listening.shutdown()


@contextlib.contextmanager
def before(port: int, words: bytes) -> Iterator[int]:
    """A port behind which `port` answers, after `words`, which come in two pieces."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as there:
                self.request.sendall(words[:9])
                time.sleep(0.7)
                self.request.sendall(words[9:])
                threading.Thread(target=_pass, args=(self.request, there), daemon=True).start()
                _pass(there, self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads, listening.block_on_close = True, False
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield int(listening.server_address[1])
        listening.shutdown()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


# --- Keys that lab did not make ------------------------------------------------------------------

_FORMATS = [("ed25519", []), ("rsa", ["-m", "PEM"]), ("rsa", []), ("ecdsa", ["-m", "PKCS8"])]


def _locked(path: Path, kind: str, form: list[str]) -> Path:
    words = ["ssh-keygen", "-q", "-t", kind, *form, "-N", "a passphrase", "-f", str(path)]
    subprocess.run(words, check=True)
    return path


@contextlib.contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *keys: Path) -> Iterator[None]:
    """The user's agent with these keys in it."""
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        _eventually(place.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho a passphrase\n")
        ask.chmod(0o755)
        env = os.environ | {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("kind", "form"), _FORMATS)
def test_a_key_with_a_passphrase_says_so_and_the_agent_may_have_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, form: list[str]
) -> None:
    key = _locked(tmp_path / "locked", kind, form)
    with (tmp_path / "authorized").open("a") as stream:
        stream.write((tmp_path / "locked.pub").read_text())
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(LockedKeyError, match=r"locked has a passphrase") as caught:
        server.guest(key=key).open()
    assert f"ssh-add {key}" in caught.value.hint
    with agent(monkeypatch, tmp_path, key), server.guest(key=key) as guest:
        assert guest.run(["echo", "in"]).out == "in\n"


def test_the_agent_is_asked_for_that_key_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (_locked(tmp_path / name, "ed25519", []) for name in ("mine", "other"))
    with (tmp_path / "authorized").open("a") as stream:
        stream.write((tmp_path / "other.pub").read_text())
    with agent(monkeypatch, tmp_path, other), pytest.raises(LockedKeyError):
        server.guest(key=mine).open()


def test_any_of_several_keys_may_be_the_one_that_is_let_in(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked, wrong = _locked(tmp_path / "locked", "rsa", ["-m", "PEM"]), _keygen(tmp_path / "wrong")
    absent = tmp_path / "absent"
    user, known = getpass.getuser(), server.known_hosts
    with adopt._entered(server.port, user, [locked, absent, wrong, server.key], known) as guest:
        assert guest.run(["echo", "in"]).out == "in\n"
    with pytest.raises(LockedKeyError) as caught:
        adopt._entered(server.port, user, [locked, absent, wrong], known)
    assert "absent" in caught.value.tail and "refuses" in caught.value.tail


def test_an_sftp_server_that_answers_what_nobody_asked_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFTP packets: length, kind, then for the version (2) its number, for a status (101) the question's."""
    talking = tmp_path / "sftp"
    talking.write_text(
        f"#!{sys.executable}\nimport os\n"
        "os.write(1, bytes([0, 0, 0, 5, 2, 0, 0, 0, 3]))\n"
        "while True: os.write(1, bytes([0, 0, 0, 9, 101, 0, 0, 99, 99, 0, 0, 0, 0]) * 1000)\n"
    )
    talking.chmod(0o755)
    server.stop()
    monkeypatch.setitem(globals(), "SFTP", str(talking))
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


# A command on this process's own standard streams, as lab.exec runs it

STREAM = """\
import sys
from pathlib import Path
from lab.cli import streams
streams.prepare()
from lab.cli import perform
from lab.commands.session import Reply
from lab.deadline import Deadline
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
    process = _streaming(server, "sh", "-c", STUBBORN, str(note), seconds=2 if by == "deadline" else 60)
    pid = _started(note)
    if by == "signal":
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (12 if by == "deadline" else 130), err
    _eventually(lambda: _gone(pid))


def test_stream_whose_reader_went_away_ends_the_command_over_there_too(
    server: Server, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    process = _streaming(server, "sh", "-c", 'echo $$ > "$0"; exec yes', str(note))
    assert process.stdout and process.stdout.read(9) == b"y\ny\ny\ny\ny"
    process.stdout.close()
    pid = _started(note)
    assert process.wait(timeout=20) == 0
    _eventually(lambda: _gone(pid))


def test_stream_of_a_vm_that_goes_says_so(server: Server) -> None:
    process = _streaming(server, "sh", "-c", "echo on; sleep 30")
    assert process.stdout and process.stdout.readline() == b"on\n"
    server.stop()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and b"the connection to the VM broke" in err

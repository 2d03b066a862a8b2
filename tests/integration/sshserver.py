"""A real sshd on the loopback, and servers that only pretend to be one."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.guest.ssh import Guest

PROGRAM = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


STUBBORN = 'trap "" TERM; echo $$ > "$0"; while :; do sleep 1; done'


class Server:
    """An sshd with keys of its own, which may be stopped and started; `port` 0 is any that is free."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.key = keygen(folder / "user")
        self.host_key = keygen(folder / "host")
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"lab-vm {(folder / 'host.pub').read_text()}")
        self.sftp = "internal-sftp"
        self.environment = ""
        """Further NAME=value words for each command."""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.host_key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder / 'authorized'}\nStrictModes no\n"
            f"PasswordAuthentication no\nSubsystem sftp {self.sftp}\n"
            f"SetEnv HOME={self.folder} {self.environment}\n"  # else each command runs the tester's ~/.bashrc
        )
        assert PROGRAM
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-D", "-e", "-f", str(config)], stderr=log, start_new_session=True
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


def keygen(path: Path) -> Path:
    """The private key at that path, made unless it is there."""
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True


def started(path: Path) -> int:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the command did not start")


def eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not check() and time.monotonic() < until:
        time.sleep(0.05)
    assert check()


@contextlib.contextmanager
def speaking(speak: Callable[[bytes], Iterator[bytes]]) -> Iterator[int]:
    """The port of a server that says this to whoever comes."""

    def talk(client: socket.socket) -> None:
        for piece in speak(b""):
            client.sendall(piece)

    with _serving(talk) as port:
        yield port


@contextlib.contextmanager
def before(port: int, words: bytes) -> Iterator[int]:
    """A port behind which `port` answers, after `words`, which come in two pieces."""

    def pass_on(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as there:
            client.sendall(words[:9])
            time.sleep(0.7)
            client.sendall(words[9:])
            threading.Thread(target=_pass, args=(client, there), daemon=True).start()
            _pass(there, client)

    with _serving(pass_on) as own:
        yield own


@contextlib.contextmanager
def slow(port: int, rate: int) -> Iterator[int]:
    """A port behind which `port` answers with `rate` bytes a second at most, of which few wait on the way."""

    def pass_on(client: socket.socket) -> None:
        with socket.socket() as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            there.connect(("127.0.0.1", port))
            threading.Thread(target=_pass, args=(client, there), daemon=True).start()
            while chunk := there.recv(65536):
                time.sleep(len(chunk) / rate)
                client.sendall(chunk)

    with _serving(pass_on) as own:
        yield own


@contextlib.contextmanager
def _serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                handle(self.request)

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

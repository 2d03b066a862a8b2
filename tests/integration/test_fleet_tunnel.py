"""A host's road to its coordinator against a real sshd: its key leads to one port, and to nothing else."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.errors import BlockedError
from lab.fleet import joining
from lab.fleet.joining import Road
from lab.fleet.places import Membership
from lab.guest import keys
from lab.host.ports import free_port
from tests.integration import sshserver

pytestmark = pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)")


@contextlib.contextmanager
def greeting(text: bytes) -> Iterator[int]:
    """The port of a service on the loopback that says this."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as stream:
                        stream.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def heard(port: int, seconds: float = 10.0) -> bytes:
    """What a port of the loopback says; empty where nothing does in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2.0) as stream:
            return stream.recv(100)
        time.sleep(0.05)
    return b""


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[sshserver.Server]:
    (tmp_path / "box").mkdir()
    server = sshserver.Server(tmp_path / "box")
    server.start()
    (tmp_path / "ssh_config").write_text(
        f"Host desk\n HostName 127.0.0.1\n Port {server.port}\n UserKnownHostsFile {tmp_path / 'known'}\n"
    )
    (tmp_path / "known").write_text(
        f"[127.0.0.1]:{server.port} {(tmp_path / 'box' / 'host.pub').read_text()}"
    )
    heard(server.port)
    yield server
    server.stop()


def joined(folder: Path, port: int) -> tuple[Membership, Road]:
    place = Membership(folder / "state")
    place.folder.mkdir(parents=True, mode=0o700)
    keys.ensure_pair(place.key, "lab-fleet-mini")
    road = Road(
        name="mini",
        port=free_port(19300),
        coordinator="desk",
        coordinator_port=port,
        ssh_config=str(folder / "ssh_config"),
    )
    return place, road


def ssh(place: Membership, road: Road, *words: str) -> list[str]:
    """The tunnel's own ssh with other wishes."""
    own = joining.tunnel(place, road)
    at = own.index("-L")
    return [*own[:at], *words, *own[at + 2 :]]


def test_before_its_line_is_there_the_host_is_told_which(
    coordinator: sshserver.Server, tmp_path: Path
) -> None:
    place, road = joined(tmp_path, 9989)
    with pytest.raises(BlockedError) as caught:
        joining.try_key(place, road)
    line = joining.authorized_line(place, road)
    assert line in caught.value.hint
    assert "Permission denied" in caught.value.tail
    (tmp_path / "box" / "authorized").write_text(line + "\n")
    joining.try_key(place, road)


def test_a_coordinator_that_shows_another_key_is_refused(
    coordinator: sshserver.Server, tmp_path: Path
) -> None:
    place, road = joined(tmp_path, 9989)
    (tmp_path / "box" / "authorized").write_text(joining.authorized_line(place, road) + "\n")
    (tmp_path / "known").write_text("")
    with pytest.raises(BlockedError) as caught:
        joining.try_key(place, road)
    assert "Host key verification failed" in caught.value.tail


def test_the_key_leads_to_one_port_and_to_nothing_else(coordinator: sshserver.Server, tmp_path: Path) -> None:
    with greeting(b"the queue") as queue, greeting(b"a database") as other:
        place, road = joined(tmp_path, queue)
        (tmp_path / "box" / "authorized").write_text(joining.authorized_line(place, road) + "\n")
        tunnel = subprocess.Popen(joining.tunnel(place, road))
        elsewhere = free_port(19400)
        wrong = subprocess.Popen(
            ssh(place, road, "-L", f"127.0.0.1:{elsewhere}:127.0.0.1:{other}"), stderr=subprocess.PIPE
        )
        try:
            assert heard(road.port) == b"the queue"
            assert heard(elsewhere) == b"", "another port of the coordinator"
            listening = ssh(place, road, "-R", f"127.0.0.1:{free_port(19500)}:127.0.0.1:{other}")
            refused = subprocess.run(listening, capture_output=True, text=True, check=False, timeout=30)
            assert refused.returncode != 0
            assert "remote port forwarding failed" in refused.stderr
            words = [word for word in ssh(place, road) if word != "-N"]
            for wish in ([*words, "id"], [words[0], "-tt", *words[1:]]):  # a command, a shell
                done = subprocess.run(wish, capture_output=True, text=True, check=False, timeout=30)
                assert (done.returncode, done.stdout) == (1, ""), done.stderr
        finally:
            for process in (tunnel, wrong):
                process.kill()
                process.wait()

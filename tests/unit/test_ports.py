import os
import socket

import pytest

from lab.core.errors import BlockedError
from lab.host.ports import free_port, holder_of, is_free


@pytest.fixture
def listener():
    """Listens on an address, on a port the system chooses; closed at the end."""
    opened = []

    def listen(address: str = "127.0.0.1", *, backlog: int | None = 1) -> int:
        server = socket.socket()
        opened.append(server)
        server.bind((address, 0))
        if backlog is not None:
            server.listen(backlog)
        return server.getsockname()[1]

    yield listen
    for server in opened:
        server.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_someone_listens_on_is_taken(listener, address):
    port = listener(address)
    assert not is_free(port)
    assert free_port(port) != port


def test_a_port_someone_has_bound_and_not_yet_opened_is_taken(listener):
    assert not is_free(listener(backlog=None))


def test_a_port_is_taken_by_whoever_answers_even_where_it_can_be_bound(monkeypatch):
    """As on macOS beside a listener on 0.0.0.0: binding succeeds there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    assert is_free(port)
    monkeypatch.setattr("lab.host.ports._answers", lambda asked: asked == port)
    assert not is_free(port)


def test_a_port_is_free_again_as_soon_as_its_server_has_ended():
    """Its last connection still lingers in TIME_WAIT then."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()
    client.close()
    assert is_free(port)
    assert free_port(port) == port


def test_ports_others_have_been_promised_are_passed_over():
    first = free_port(20000)
    assert free_port(first, {first, first + 1}) >= first + 2


def test_no_free_port_is_said(monkeypatch):
    monkeypatch.setattr("lab.host.ports.is_free", lambda _port: False)
    with pytest.raises(BlockedError, match="from 65530 to 65535"):
        free_port(65530)


def test_the_holder_is_named(listener):
    port = listener()
    assert f"(pid {os.getpid()})" in holder_of(port)
    assert holder_of(free_port(20000)) == ""

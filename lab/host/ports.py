"""TCP ports of the host's loopback: which are free, and who holds one that is not."""

from __future__ import annotations

import socket
from collections.abc import Container

from lab.core.errors import BlockedError

LOOPBACK = "127.0.0.1"
_HIGHEST = 65535
_NEARBY = 1000
_CONNECT_SECONDS = 0.5


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 and nobody answers there yet.

    Binding alone does not tell: where another process listens on 0.0.0.0, some systems let
    127.0.0.1 be bound beside it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this, connections of a server that has just ended would keep its port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return not _answers(port)


def free_port(preferred: int, taken: Container[int] = ()) -> int:
    """`preferred`, or the next free port above it that is not in `taken`.

    Raises BlockedError when none of the next thousand is free.
    """
    last = min(preferred + _NEARBY, _HIGHEST)
    for port in range(preferred, last + 1):
        if port not in taken and is_free(port):
            return port
    raise BlockedError(
        f"no port from {preferred} to {last} of {LOOPBACK} is free",
        hint="end what holds them, or fix a free port in the section [ports] of the configuration",
    )


def holder_of(port: int) -> str:
    """` by `name` (pid n)` for the process that listens on `port`; empty when the system won't tell."""
    import psutil

    try:
        listening = [
            connection
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        ]
        pid = next((connection.pid for connection in listening if connection.pid), None)
        return f" by `{psutil.Process(pid).name()}` (pid {pid})" if pid else ""
    except (psutil.Error, OSError):  # other users' processes are not ours to see
        return ""


def _answers(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        if client.connect_ex((LOOPBACK, port)) != 0:
            return False
        # A port in the range for outgoing connections may be connected to itself.
        return bool(client.getsockname() != client.getpeername())

"""noVNC, asked as a browser would: by a server on the loopback that says what a test wants."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lab.emulators.docker_android import looking
from lab.emulators.docker_android.sighting import Novnc

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Speak = Callable[[bytes], Iterator[bytes]]


@contextlib.contextmanager
def answering(page: Speak, stream: Speak) -> Iterator[str]:
    """The address of a server that answers GET /vnc.html with `page`, and all else with `stream`."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            with contextlib.suppress(OSError):
                for piece in (page if head.startswith(b"GET /vnc.html ") else stream)(head):
                    self.wfile.write(piece)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:{1}".format(*server.server_address)
        server.shutdown()


def page(_: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def accepted(head: bytes) -> bytes:
    key = next(line for line in head.decode().splitlines() if line.startswith("Sec-WebSocket-Key: "))
    digest = hashlib.sha1((key.partition(": ")[2] + _GUID).encode()).digest()  # noqa: S324 - RFC 6455
    answer = base64.b64encode(digest).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {answer}\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
    ).encode()


def greeting(head: bytes) -> Iterator[bytes]:
    yield accepted(head)
    yield b"\x82\x0cRFB 003.008\n"


def endless_page(_: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from itertools.repeat(b"x" * 65536)


def endless_head(_: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 "
    yield from itertools.repeat(b"x" * 65536)


def dripping_head(_: bytes) -> Iterator[bytes]:
    for _ in iter(int, 1):
        yield b"H"
        time.sleep(0.02)


def endless_pings(head: bytes) -> Iterator[bytes]:
    yield accepted(head)
    yield from itertools.repeat(b"\x89\x00" * 1000)


def endless_frame(head: bytes) -> Iterator[bytes]:
    yield accepted(head)
    yield b"\x82\x7f" + (1 << 40).to_bytes(8, "big")
    yield from itertools.repeat(b"x" * 65536)


def test_page_and_vnc_server_are_heard() -> None:
    with answering(page, greeting) as address:
        assert looking.novnc(address) == Novnc(200, "RFB 003.008\n")


@pytest.mark.parametrize(
    ("first", "second", "status", "why"),
    [
        (endless_page, greeting, None, "no page"),
        (endless_head, greeting, None, "no page"),
        (dripping_head, greeting, None, "no page"),
        (page, endless_head, 200, "no WebSocket"),
        (page, dripping_head, 200, "no WebSocket"),
        (page, endless_pings, 200, "no WebSocket"),
        (page, endless_frame, 200, "no WebSocket"),
    ],
)
def test_what_never_ends_is_what_was_seen(first: Speak, second: Speak, status: int | None, why: str) -> None:
    began = time.monotonic()
    with answering(first, second) as address:
        heard = looking.novnc(address, seconds=1.0)
    assert heard.page == status and heard.error.startswith(why) and bool(heard.error) is bool(why)
    assert time.monotonic() - began < 8

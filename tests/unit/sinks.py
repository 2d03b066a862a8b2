"""Real servers on the loopback that write down what they are sent: HTTP with set answers, and SMTP."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.serving import serving


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    code: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    """Close the connection without a word."""


@dataclass
class HttpSink:
    """`answer` decides; `requests` is what came."""

    url: str
    answer: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def http(answer: Callable[[Request], Answer] | None = None) -> Iterator[HttpSink]:
    sink = HttpSink("", answer or (lambda _: Answer()))

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, dict(self.headers), body)
            sink.requests.append(request)
            said = sink.answer(request)
            if said.drop:
                self.close_connection = True
                return
            content = b"" if said.content is None else json.dumps(said.content).encode()
            self.send_response(said.code)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _do  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.url = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield sink


@contextlib.contextmanager
def raw(
    talk: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None, at: str = "127.0.0.1"
) -> Iterator[str]:
    """A server that does with each connection what `talk` does; its address, host:port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                talk(connection)

    server = _Threaded((at, 0), Handler)
    with serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


def endless(begin: bytes, more: bytes, *, seconds: float = 0.0, listen: bool = True) -> Callable[..., None]:
    """What says `begin` once it was asked, then `more` for ever, with so many seconds in between."""

    def talk(connection: socket.socket) -> None:
        if listen:
            connection.recv(65536)
        connection.sendall(begin)
        while True:
            connection.sendall(more)
            time.sleep(seconds)

    return talk


class _Threaded(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@dataclass
class SmtpSink:
    port: int
    refuse: list[str] = field(default_factory=list)
    """Answers to RCPT, one each, before it is accepted."""
    messages: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    """What it offers in answer to EHLO."""
    said: list[str] = field(default_factory=list)
    """Every command it was given."""


@contextlib.contextmanager
def smtp() -> Iterator[SmtpSink]:
    sink = SmtpSink(0)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 sink")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                sink.said.append(line)
                if word == "DATA":
                    self._say("354 go on")
                    lines = []
                    while (part := self.rfile.readline().decode()) != ".\r\n":
                        lines.append(part.rstrip("\r\n"))
                    sink.messages.append("\n".join(lines))
                    self._say("250 taken")
                elif word == "RCPT" and sink.refuse:
                    self._say(sink.refuse.pop(0))
                elif word == "EHLO":
                    *more, last = ["sink", *sink.features]
                    for feature in more:
                        self._say(f"250-{feature}")
                    self._say(f"250 {last}")
                elif word == "AUTH":
                    self._say("235 welcome")
                elif word == "QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 fine")

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    sink.port = server.server_address[1]
    with serving(server):
        yield sink

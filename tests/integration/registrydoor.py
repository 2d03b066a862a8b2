"""A door in front of a real registry that can misbehave in the ways registries and networks do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from tests.serving import serving


@dataclass
class Manner:
    """How one request is answered. The default is: well."""

    status: int = 0
    """Answer so instead of asking the registry."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    stall: int | None = None
    """Fall silent after so many bytes, until the door is closed."""
    body: bytes | None = None
    """Send this instead."""
    headers: dict[str, str] = field(default_factory=dict)
    """In place of the registry's; an empty one is left out."""
    forget: bool = False
    """Ask the registry without the Authorization that came."""
    then: Callable[[], None] | None = None


@dataclass
class Request:
    method: str
    path: str
    range: str
    authorization: str
    status: int = 0
    sent: int = 0


class Door(ThreadingHTTPServer):
    """Passes requests to the registry at `behind`, and can misbehave on the way."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Doorman)
        self.behind = behind
        self.manners: list[tuple[str, Manner]] = []
        self.always: list[tuple[str, Manner]] = []
        self.requests: list[Request] = []
        self.released = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def answers(self, part: str, *manners: Manner) -> None:
        """The next requests whose path contains `part` are answered so, later ones well."""
        self.manners += [(part, manner) for manner in manners]

    def manner(self, path: str) -> Manner:
        for waiting in self.manners:
            if waiting[0] in path:
                self.manners.remove(waiting)
                return waiting[1]
        return next((manner for part, manner in self.always if part in path), Manner())

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Doorman(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        head = self.headers
        note = Request(self.command, self.path, head.get("Range", ""), head.get("Authorization", ""))
        self.server.requests.append(note)
        self.close_connection = True
        manner = self.server.manner(self.path)
        if manner.status:
            self._head(
                note, manner.status, {"Content-Length": str(len(manner.body or b"")), **manner.headers}
            )
            self._send(note, manner.body or b"", manner)
        else:
            self._pass_on(note, manner)
        if manner.then:
            manner.then()

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _pass_on(self, note: Request, manner: Manner) -> None:
        dropped = {"host", "connection"} | ({"authorization"} if manner.forget else set())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        answer = requests.request(
            self.command,
            f"http://{self.server.behind}{self.path}",
            headers=headers,
            allow_redirects=False,
            timeout=30,
        )
        body = answer.content if manner.body is None else manner.body
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date")
        }
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        merged = kept | {"Content-Length": length} | manner.headers
        self._head(note, answer.status_code, {name: value for name, value in merged.items() if value})
        self._send(note, body, manner)

    def _head(self, note: Request, status: int, headers: dict[str, str]) -> None:
        note.status = status
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, note: Request, body: bytes, manner: Manner) -> None:
        if self.command == "HEAD":
            return
        stop = next((at for at in (manner.cut, manner.stall) if at is not None), len(body))
        self.wfile.write(body[:stop])
        self.wfile.flush()
        note.sent = min(stop, len(body))
        if manner.stall is not None:
            self.server.released.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        """The requests are kept in `requests`."""


@contextmanager
def door(behind: str) -> Iterator[Door]:
    made = Door(behind)
    with serving(made):
        try:
            yield made
        finally:
            made.released.set()

"""The one door to the web: no answer is longer, slower or harder to stop than its asker allows.

A timeout of requests bounds one silence of the server, not its whole answer: a header that never ends, a
byte every few seconds, the body of a redirect are all read to their end. Here every byte that arrives is
counted below HTTP, in the socket, and each read looks at the deadline and at cancellation. The loopback is
never reached through a proxy, and what a server redirects to is shown no login.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import io
import ipaddress
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from lab.deadline import Deadline, check_cancelled
from lab.errors import BlockedError, DeadlineError

HEAD_BYTES = 1 << 20
"""What headers, redirects and the framing of a body may take, beside the body."""
_LOOK_SECONDS = 0.2
"""How often a read that waits looks up."""
_LONGEST_SILENCE = 3600.0
_EPOCH = 1_000_000_000
"""A Retry-After of more seconds than this (30 years) is a moment in Unix time, as Docker Hub sends it."""
_NEVER_PROXIED = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")


class Bounds:
    """What one exchange may take: until `deadline`, and `limit` bytes of all that is received."""

    def __init__(self, what: str, deadline: Deadline, limit: int) -> None:
        self._what, self.deadline, self._limit = what, deadline, limit
        self._received = 0

    def check(self) -> None:
        """Raises DeadlineError, InterruptedByUser."""
        check_cancelled()
        if self.deadline.passed:
            raise DeadlineError(f"{self._what} was not fetched in {self.deadline.seconds:.0f} s")

    def add(self, count: int) -> None:
        """Count bytes that came. Raises BlockedError when they are too many, and what `check` raises."""
        self._received += count
        if self._received > self._limit:
            raise BlockedError(f"{self._what} sends more than {self._limit} bytes: not what was asked for")
        self.check()


_bounds: ContextVar[Bounds] = ContextVar("bounds")


@contextlib.contextmanager
def bounded(what: str, deadline: Deadline, limit: int) -> Iterator[None]:
    """Everything this thread receives in here, by a Session or a Watched socket, is one bounded exchange.

    `what` names it in errors; `limit` is bytes, headers included. Reads raise DeadlineError, BlockedError
    (too long), InterruptedByUser.
    """
    bounds = Bounds(what, deadline, limit)
    bounds.check()
    token = _bounds.set(bounds)
    try:
        yield
    finally:
        _bounds.reset(token)


class Watched:
    """A connected socket whose reads keep to the bounds of the exchange; else it is the socket itself."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._silence = plain.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def settimeout(self, seconds: float | None) -> None:
        self._silence = seconds
        self._plain.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: Any) -> int:
        """As a socket's. Raises TimeoutError after a silence as long as the socket's timeout."""
        bounds = _bounds.get()
        silence = Deadline.after(_LONGEST_SILENCE if self._silence is None else self._silence)
        try:
            while True:
                bounds.check()
                wait = min(_LOOK_SECONDS, silence.left, bounds.deadline.left)
                self._plain.settimeout(max(0.01, wait))
                try:
                    count = self._plain.recv_into(buffer)
                    break
                except TimeoutError:
                    if silence.passed:
                        raise
        finally:
            with contextlib.suppress(OSError):
                self._plain.settimeout(self._silence)
        bounds.add(count)
        return count

    def makefile(self, *_: Any) -> io.BufferedReader:
        """The socket as a file to read bytes from."""
        return io.BufferedReader(_Stream(self))


class _Stream(io.RawIOBase):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        # The socket counts those that read it: closed by its connection, it lives until this is closed.
        self._held = watched._plain.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._watched.recv_into(buffer)

    def close(self) -> None:
        self._held.close()
        super().close()


class _WatchedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(cast(socket.socket, Watched(sock)), *args, **named)


class _PlainConnection(HTTPConnection):
    response_class = _WatchedResponse


class _TlsConnection(HTTPSConnection):
    response_class = _WatchedResponse


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Ask: on the loopback without a proxy, and never longer than the exchange may take."""
        if is_loopback(urlsplit(request.url or "").hostname or ""):
            options["proxies"] = {}
            request.headers.pop("Proxy-Authorization", None)
        bounds = _bounds.get()
        bounds.check()
        connect, silence = _pair(options.get("timeout"))
        options["timeout"] = (max(0.1, min(connect, bounds.deadline.left)), silence)
        return super().send(request, **options)


class Session(requests.Session):
    """requests' session, to be used in `bounded`. A redirect is followed without reading its own body.

    Raises BlockedError where https redirects to anything else.
    """

    def __init__(self) -> None:
        super().__init__()
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        resp.close()  # else requests would read all of its body, and unpack it
        scheme = urlsplit(target).scheme
        if urlsplit(resp.url).scheme == "https" and scheme not in ("", "https"):
            raise BlockedError(
                f"{shown(resp.url)} redirects to {scheme}: lab does not leave https",
                hint="name a mirror that serves the files itself",
            )
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Take the login off where the redirect leads to another host. ~/.netrc gives it no other."""
        before, after = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(before, after):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)


@dataclass(frozen=True)
class Answer:
    """A whole answer: its HTTP status, the headers (in any case of letters), and the body as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises ValueError."""
        return parse_json(self.body)


def read_some(response: requests.Response, size: int) -> bytes:
    """What has arrived of the body, at most `size` bytes, as it came (packed, if it is); empty at its end.

    It does not wait for a whole block. Raises what urllib3 raises, and what `bounded` says.
    """
    data: bytes | None = response.raw.read1(size, decode_content=False)
    return data or b""


def read_whole(response: requests.Response, limit: int) -> bytes:
    """The body. Raises BlockedError when it is longer than `limit` bytes, and what `read_some` raises."""
    body = bytearray()
    while chunk := read_some(response, 1 << 16):
        body += chunk
        if len(body) > limit:
            raise BlockedError(f"{shown(response.url)} is longer than {limit} bytes: not what was asked for")
    return bytes(body)


def parse_json(text: str | bytes) -> Any:
    """JSON of a stranger's. Raises ValueError for whatever is wrong with it, nesting too deep included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None when it does not say, or nothing that can be read.

    Given as seconds, as a date (RFC 9110), or as Unix time. A moment is taken by the server's own clock
    where the answer has a Date.
    """
    text = headers.get("Retry-After", "").strip()
    now = _moment(headers.get("Date", "")) or time.time()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        seconds = float(text)
        return max(0.0, seconds - now) if seconds > _EPOCH else seconds
    until = _moment(text)
    return None if until is None else max(0.0, until - now)


def length(headers: Mapping[str, str]) -> int | None:
    """The Content-Length in bytes; None where there is none that can be."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without its port) is this machine's loopback."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address).is_loopback


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have every program started from here reach the loopback without a proxy, where one is set."""
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return
    for name in ("no_proxy", "NO_PROXY"):
        given = environment.get(name) or environment.get(name.swapcase()) or ""
        words = [word.strip() for word in given.split(",") if word.strip()]
        if "*" not in words:
            environment[name] = ",".join(dict.fromkeys((*words, *_NEVER_PROXIED)))


def shown(url: str) -> str:
    """The URL without user, password, query: fit for logs and files."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _pair(timeout: Any) -> tuple[float, float]:
    """requests' timeout as seconds to connect and seconds of silence."""
    first, second = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return (first or _LONGEST_SILENCE, second or _LONGEST_SILENCE)


def _moment(date: str) -> float | None:
    """An HTTP date as Unix time, None if it is none."""
    try:
        parsed = email.utils.parsedate_tz(date)
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (ValueError, OverflowError, TypeError):
        return None

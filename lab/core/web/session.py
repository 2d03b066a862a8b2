"""requests, with its reads bounded; the loopback without a proxy, and no login for where a redirect leads."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from lab.core.bounds import LONGEST_SILENCE
from lab.core.errors import BlockedError
from lab.core.web.bounds import current, watched
from lab.core.web.words import is_loopback, parse_json, shown


class _WatchedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(cast(socket.socket, watched(sock)), *args, **named)


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
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidProxyURL("not a proxy of HTTP")
        manager = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Ask: on the loopback without a proxy, and never longer than the exchange may take."""
        if is_loopback(urlsplit(request.url or "").hostname or ""):
            options["proxies"] = {}
            request.headers.pop("Proxy-Authorization", None)
        bounds = current.get()
        bounds.check()
        connect, silence = _pair(options.get("timeout"))
        options["timeout"] = (max(0.1, min(connect, bounds.deadline.left)), silence)
        return super().send(request, **options)


class HttpSession(requests.Session):
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


def _pair(timeout: Any) -> tuple[float, float]:
    """requests' timeout as seconds to connect and seconds of silence."""
    first, second = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return (first or LONGEST_SILENCE, second or LONGEST_SILENCE)

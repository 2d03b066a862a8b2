"""A real HTTP server on the loopback that can misbehave in the ways download servers do."""

from __future__ import annotations

import ipaddress
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Served:
    """A file as the server has it."""

    body: bytes
    etag: str = '"one"'
    last_modified: str = "Sun, 01 Nov 2026 10:00:00 GMT"


@dataclass
class Manner:
    """How one request is answered. The default is: well."""

    status: int = 200
    cut: int | None = None
    """Close the connection after so many bytes of this body."""
    stall: int | None = None
    """Fall silent after so many bytes, until the server is released."""
    chunked: bool = False
    ignore_range: bool = False
    ignore_if_range: bool = False
    length: int | None = None
    """Promise so many bytes, whatever follows."""
    content_range: str = ""
    extra: bytes = b""
    location: str = ""
    encoding: str = ""
    then: Callable[[], None] | None = None
    """Runs after the answer was sent."""


@dataclass(frozen=True)
class Request:
    path: str
    range: str
    if_range: str
    status: int


class ImageServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        """With a `certificate` (see make_certificate) it speaks https and nothing else."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.files: dict[str, Served] = {}
        self.manners: dict[str, list[Manner]] = {}
        self.always: dict[str, Manner] = {}
        self.requests: list[Request] = []
        self.released = threading.Event()

    @property
    def base(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return self.base + path

    def answers(self, path: str, *manners: Manner) -> None:
        """The next requests for `path` are answered so, later ones well."""
        self.manners[path] = list(manners)

    def go_away(self) -> None:
        """Stop listening: connections are refused from here on."""
        self.shutdown()
        self.server_close()

    def ranges(self) -> list[str]:
        return [request.range for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        waiting = self.server.manners.get(path, [])
        manner = waiting.pop(0) if waiting else self.server.always.get(path, Manner())
        served = self.server.files.get(path)
        self.close_connection = True
        if served is None or manner.status >= 300:
            status = manner.status if manner.status >= 300 else 404
            self._log(status)
            self._head(
                status, {"Content-Length": "0"} | ({"Location": manner.location} if manner.location else {})
            )
        else:
            self._serve(served, manner)
        if manner.then:
            manner.then()

    def _serve(self, served: Served, manner: Manner) -> None:
        total, first = len(served.body), 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fits = self.headers.get("If-Range", served.etag) in (served.etag, served.last_modified)
        if asked and not manner.ignore_range and (fits or manner.ignore_if_range):
            first = int(asked[1])
            if first >= total:
                self._log(416)
                self._head(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
                return
        body = served.body[first:] + manner.extra
        head = {
            "ETag": served.etag,
            "Last-Modified": served.last_modified,
            "Content-Encoding": manner.encoding,
        }
        if manner.chunked:
            head["Transfer-Encoding"] = "chunked"
        else:
            head["Content-Length"] = str(total - first if manner.length is None else manner.length)
        if first:
            head["Content-Range"] = manner.content_range or f"bytes {first}-{total - 1}/{total}"
        self._log(206 if first else 200)
        self._head(206 if first else 200, {name: value for name, value in head.items() if value})
        self._send(body, manner)

    def _send(self, body: bytes, manner: Manner) -> None:
        stop = next((at for at in (manner.cut, manner.stall) if at is not None), len(body))
        self._write(body[:stop], manner.chunked)
        if manner.stall is not None:
            self.server.released.wait(60)
            self._write(body[stop:], manner.chunked)
        if manner.chunked and manner.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, data: bytes, chunked: bool) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            self.wfile.flush()

    def _head(self, status: int, head: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**head, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _log(self, status: int) -> None:
        head = self.headers
        self.server.requests.append(
            Request(self.path, head.get("Range", ""), head.get("If-Range", ""), status)
        )

    def log_message(self, format: str, *args: object) -> None:
        """The requests are kept in `requests`."""


def make_certificate(folder: Path) -> Path:
    """A file with a key and a certificate of its own for 127.0.0.1, good today."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def image_server(certificate: Path | None = None) -> Iterator[ImageServer]:
    server = ImageServer(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.go_away()
        thread.join()

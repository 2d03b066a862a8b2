"""A registry's token service: what it gives, docker-registry itself verifies."""

from __future__ import annotations

import base64
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from registryserver import IDENTITY, PASSWORD, USER

SERVICE = "lab-test-registry"


class TokenService(ThreadingHTTPServer):
    """Gives tokens that docker-registry itself verifies: JWT, ES256, its certificate in the header."""

    daemon_threads = True

    def __init__(self, folder: Path, *, login: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _TokenClerk)
        self.login = login
        """Whether only USER and PASSWORD get a token."""
        self.asked: list[tuple[dict[str, list[str]], str]] = []
        """Each request's query, and its Authorization."""
        self.given: list[str] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(self._key)
        self._der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self._bundle = folder / "token.pem"
        self._bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    @property
    def auth(self) -> dict[str, Any]:
        """The `auth` section of a registry that sends here."""
        return {
            "token": {
                "realm": self.url,
                "service": SERVICE,
                "issuer": "lab test",
                "rootcertbundle": str(self._bundle),
            }
        }

    def token(self, scope: str) -> str:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._der]}
        claims = {
            "iss": "lab test",
            "sub": "",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        signed = f"{_packed(json.dumps(header).encode())}.{_packed(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        made = f"{signed}.{_packed(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        self.given.append(made)
        return made


class _TokenClerk(BaseHTTPRequestHandler):
    server: TokenService

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        login = self.headers.get("Authorization", "")
        self.server.asked.append((asked, login))
        right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.server.login and login != right:
            self.send_response(401)
            self.end_headers()
            return
        body = json.dumps({"token": self.server.token(asked["scope"][0]), "expires_in": 300}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """OAuth 2: an identity token for one that opens the registry."""
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append((sent, self.headers.get("Authorization", "")))
        right = sent.get("refresh_token") == [IDENTITY] and sent.get("client_id")
        self.send_response(200 if right else 401)
        made = self.server.token(sent["scope"][0]) if right else ""
        body = json.dumps({"access_token": made}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The requests are kept in `asked`."""


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab test token service")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

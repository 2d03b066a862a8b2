"""No answer of the web is longer, slower or harder to stop than its asker allows: real servers, no fakes."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline, web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError
from lab.core.steps import Steps
from lab.core.web import Patience
from lab.emulators.docker_android import looking
from lab.images.download import download
from lab.images.transport import fetch
from lab.notify.mail import Mail
from lab.notify.message import Notice
from lab.notify.sending import DeliveryError
from lab.notify.webhook import Webhook
from tests.unit import sinks
from tests.unit.sinks import endless

QUICK = Patience(connect=2, read=5, attempts=1)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NOTICE = Notice(1, "u", "h", "2026-01-02T03:04:05+00:00", "nesting", "refuted", "because", "")

FLOODS = {
    "a body": endless(OK + b"\r\n", b"x" * 65536),
    "lines of a header": endless(OK, b"X: y\r\n" * 50),
    "one line of a header": endless(OK + b"X: ", b"y" * 65536),
    "answers before the answer": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "small chunks": endless(CHUNKED, b"1\r\nx\r\n" * 1000),
    "the head of a chunk": endless(CHUNKED + b"1;", b"x" * 65536),
    "lines after the chunks": endless(CHUNKED + b"0\r\n", b"x: y\r\n" * 1000),
    "the body of a redirect": endless(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"x" * 65536),
    "the body of a refusal": endless(b"HTTP/1.1 404 No\r\n\r\n", b"x" * 65536),
    "the body of an error": endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536),
}
DRIPS = {
    "a body": endless(OK + b"\r\n", b"x", seconds=0.1),
    "a header": endless(OK + b"X: ", b"y", seconds=0.1),
    "chunks": endless(CHUNKED, b"1\r\nx\r\n", seconds=0.1),
    "the body of a redirect to another": endless(
        b"HTTP/1.1 307 Away\r\nLocation: /x\r\nX: ", b"x", seconds=0.1
    ),
    "nothing": lambda connection: time.sleep(5),
}
"""Each byte in time for a timeout that bounds one silence."""


def ask(url: str, *, seconds: float = 30.0, limit: int = 1 << 20) -> bytes:
    with web.HttpSession() as session:
        wait = Deadline.after(seconds)
        return fetch(session, url, {}, limit=limit, deadline=wait, patience=QUICK).body


@pytest.mark.parametrize("talk", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_cut_off(talk: Callable[..., None]) -> None:
    with sinks.raw(talk) as address, pytest.raises(BlockedError):
        ask(f"http://{address}/")


@pytest.mark.parametrize("talk", DRIPS.values(), ids=DRIPS)
def test_what_drips_is_given_up_at_the_deadline(talk: Callable[..., None]) -> None:
    began = time.monotonic()
    with sinks.raw(talk) as address, pytest.raises(DeadlineError, match="was not fetched in 1 s"):
        ask(f"http://{address}/", seconds=0.7)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("talk", DRIPS.values(), ids=DRIPS)
def test_what_drips_is_given_up_when_the_command_is_cancelled(talk: Callable[..., None]) -> None:
    threading.Timer(0.4, deadline.cancelled.set).start()
    began = time.monotonic()
    with sinks.raw(talk) as address, pytest.raises(InterruptedByUser):
        ask(f"http://{address}/")
    assert time.monotonic() - began < 3


@pytest.fixture(autouse=True)
def not_cancelled() -> Iterator[None]:
    yield
    deadline.cancelled.clear()


def test_a_download_is_bounded_by_what_it_may_be(tmp_path: Path) -> None:
    with sinks.raw(FLOODS["a body"]) as address, Steps().step("x") as step, pytest.raises(BlockedError):
        download(
            f"http://{address}/",
            tmp_path / "file",
            sha256="0" * 64,
            step=step,
            deadline=Deadline.after(30),
            patience=QUICK,
            limit=1 << 20,
        )
    assert [item.name for item in tmp_path.iterdir() if item.stat().st_size > 1 << 20] == []


def test_a_dripping_header_ends_a_download_too(tmp_path: Path) -> None:
    with (
        sinks.raw(DRIPS["a header"]) as address,
        Steps().step("x") as step,
        pytest.raises(DeadlineError, match="was not downloaded in 1 s"),
    ):
        wait = Deadline.after(0.6)
        download(f"http://{address}/", tmp_path / "f", sha256="0" * 64, step=step, deadline=wait)


def test_what_is_packed_is_not_unpacked() -> None:
    """A small answer that would be a thousand times as long, though nobody asked for it to be packed."""
    bomb = gzip.compress(bytes(8 << 20))
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK + head + bomb)

    with sinks.raw(talk) as address:
        assert ask(f"http://{address}/") == bomb


_FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ",
        b"HTTP/1.0 206 \xff\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: ",
        b"Content-Length: 3\r\n",
        b"Content-Length: \xb2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"WWW-Authenticate: ",
        b"http://[",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"-1\r\n",
    ]
)


def test_whatever_a_server_sends_is_an_answer_or_an_error_of_labs() -> None:
    content = b""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(content)

    with sinks.raw(talk) as address:

        @given(st.lists(_FRAGMENTS | st.binary(max_size=20), max_size=8))
        def holds(parts: list[bytes]) -> None:
            nonlocal content
            content = b"".join(parts)
            with contextlib.suppress(LabError):
                assert isinstance(ask(f"http://{address}/", seconds=5), bytes)
            with contextlib.suppress(DeliveryError):
                Webhook(f"http://{address}/", patience=Patience(attempts=1, read=5)).deliver(NOTICE)

        holds()


def test_a_body_in_small_chunks_is_longer_on_its_way_and_still_right(tmp_path: Path) -> None:
    chunks, size = 100_000, 64

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
        connection.sendall(CHUNKED + chunk * chunks + b"0\r\n\r\n")

    body = b"x" * size * chunks
    with sinks.raw(talk) as address, Steps().step("x") as step:
        assert ask(f"http://{address}/", limit=len(body)) == body
        sha256 = hashlib.sha256(body).hexdigest()
        wait = Deadline.after(60)
        made = download(
            f"http://{address}/", tmp_path / "f", sha256=sha256, step=step, deadline=wait, limit=len(body)
        )
    assert made.stat().st_size == len(body)


def test_a_connection_is_used_again_and_whole_answers_arrive() -> None:
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            asked.append(request.split()[1])
            connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
            for _ in range(100):
                connection.sendall(b"x" * 1000)

    with sinks.raw(talk) as address, web.HttpSession() as session:
        for path in ("/1", "/2"):
            wait = Deadline.after(20)
            url = f"http://{address}{path}"
            answer = fetch(session, url, {}, limit=100_000, deadline=wait, patience=QUICK)
            assert answer.body == b"x" * 100_000
    assert asked == [b"/1", b"/2"]


@pytest.mark.parametrize("nested", ["[" * 200_000, '{"a":' * 200_000, "9" * 10_000, "{", "\xff"])
def test_json_that_would_break_its_reader(nested: str) -> None:
    for content in (nested, nested.encode("latin-1")):
        with pytest.raises(ValueError, match=r"nested|JSON|digits|Expecting|decode|Exceeds"):
            web.parse_json(content)


# --- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's side, and the file with the certificate to trust."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


def test_the_same_holds_under_tls(tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))

    def well(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)

    with sinks.raw(well, context) as address:
        assert ask(f"https://localhost:{address.split(':')[1]}/") == b"x" * 300_000
    for talk in (DRIPS["a body"], DRIPS["a header"], DRIPS["nothing"]):
        with sinks.raw(talk, context) as address, pytest.raises(DeadlineError):
            ask(f"https://localhost:{address.split(':')[1]}/", seconds=0.6)
    with sinks.raw(FLOODS["a body"], context) as address, pytest.raises(BlockedError):
        ask(f"https://localhost:{address.split(':')[1]}/")


def test_a_redirect_away_from_tls_is_refused_before_it_is_followed(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with sinks.http() as plain:
        for target in (plain.url, "ftp://localhost/x"):
            head = b"HTTP/1.1 302 Found\r\nLocation: " + target.encode() + b"\r\n\r\n"
            with (
                sinks.raw(endless(head, b"x"), context) as address,
                pytest.raises(BlockedError, match="lab does not leave https"),
            ):
                ask(f"https://localhost:{address.split(':')[1]}/")
        assert plain.requests == []


# --- redirects and logins ---------------------------------------------------------------------------


def test_what_a_server_redirects_to_is_shown_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the one that was sent, nor what ~/.netrc has for everybody."""
    (tmp_path / "netrc").write_text("default login me password of-everybody\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with sinks.http() as other, sinks.http() as first:
        first.answer = lambda _: sinks.Answer(307, headers={"Location": f"{other.url}/x"})
        with web.HttpSession() as session:
            session.auth = ("ada", "secret-1")
            wait = Deadline.after(20)
            fetch(session, first.url, {}, limit=1 << 20, deadline=wait, patience=QUICK)
        assert [request.headers.get("Authorization", "")[:6] for request in first.requests] == ["Basic "]
        assert [request.headers.get("Authorization") for request in other.requests] == [None]


@pytest.mark.parametrize(
    "target", ["http://[", "http://\xff\xfe/", "http://127.0.0.1:99999/", "http:///x", "x:y"]
)
def test_a_redirect_to_nowhere(target: str) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: " + target.encode("latin-1") + b"\r\n\r\n"
    with sinks.raw(endless(head, b"x")) as address, pytest.raises(BlockedError):
        ask(f"http://{address}/")


# --- what lab tells, and what it looks at -----------------------------------------------------------


@pytest.mark.parametrize("name", [*FLOODS])
def test_a_webhook_that_floods_ends(name: str) -> None:
    with sinks.raw(FLOODS[name]) as address, pytest.raises(DeliveryError):
        Webhook(f"http://{address}/", patience=Patience(attempts=1, read=20)).deliver(NOTICE)


@pytest.mark.parametrize("name", [*DRIPS])
def test_a_webhook_that_drips_ends(name: str) -> None:
    began = time.monotonic()
    with sinks.raw(DRIPS[name]) as address, pytest.raises(DeliveryError, match=r"did not answer in|reached"):
        Webhook(f"http://{address}/", patience=Patience(attempts=1, read=0.5)).deliver(NOTICE)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "talk",
    [
        endless(b"", b"220-more\r\n" * 1000, listen=False),
        endless(b"220 ", b"x", seconds=0.1, listen=False),
        endless(b"220 hello\r\n250-", b"SIZE\r\n250-" * 1000, listen=False),
    ],
)
def test_a_mail_server_that_does_not_end_its_answer(talk: Callable[..., None]) -> None:
    with sinks.raw(talk) as address, pytest.raises(DeliveryError):
        Mail(address, "lab@example.com", "me@example.com", patience=Patience(attempts=1, read=0.3)).deliver(
            NOTICE
        )


@pytest.mark.parametrize("name", [*FLOODS, *(f"dripping {name}" for name in DRIPS)])
def test_a_page_of_novnc_ends(name: str) -> None:
    talk = DRIPS[name.removeprefix("dripping ")] if name.startswith("dripping") else FLOODS[name]
    began = time.monotonic()
    with sinks.raw(talk) as address:
        assert not looking.novnc(address, 0.7).works
    assert time.monotonic() - began < 5


def _novnc(socket_says: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """noVNC's page, and a WebSocket that speaks as given once it is open."""

    def talk(connection: socket.socket) -> None:
        request = connection.recv(65536).decode("latin-1")
        if "websockify" not in request:
            connection.sendall(OK + b"Content-Length: 2\r\n\r\nhi")
            return
        key = next(
            line.split(": ")[1] for line in request.splitlines() if line.startswith("Sec-WebSocket-Key")
        )
        magic = (key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        accept = base64.b64encode(hashlib.sha1(magic).digest())  # noqa: S324 - RFC 6455
        connection.sendall(
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        socket_says(connection)

    return talk


def _endless_frame(connection: socket.socket) -> None:
    connection.sendall(b"\x82\x7f" + struct.pack(">Q", 1 << 40))
    while True:
        connection.sendall(b"x" * 65536)


def _frames_that_drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\x89\x00")  # a ping: recv() goes on for the next
        time.sleep(0.1)


def test_the_vnc_servers_words_are_heard_and_bounded() -> None:
    with sinks.raw(_novnc(lambda connection: connection.sendall(b"\x82\x0cRFB 003.008\n"))) as address:
        assert looking.novnc(address, 2.0).works
    for says in (_endless_frame, _frames_that_drip):
        began = time.monotonic()
        with sinks.raw(_novnc(says)) as address:
            look = looking.novnc(address, 2.0)
        assert (look.page, look.banner) == (200, "")
        assert look.error
        assert time.monotonic() - began < 6


# --- waits that servers ask for ---------------------------------------------------------------------

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        (str(int(NOW.timestamp()) + 90), 90.0),
        (str(int(NOW.timestamp()) - 90), 0.0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("9" * 5000, None),
        ("١٢", None),
        ("Fri, 99 Foo 9999999999", None),
    ],
)
def test_how_long_a_server_asks_to_wait(text: str, seconds: float | None) -> None:
    """By the server's own clock: ours may be wrong."""
    assert web.retry_after({"Retry-After": text, "Date": format_datetime(NOW, usegmt=True)}) == seconds


def test_unix_time_by_our_clock_where_the_server_tells_none() -> None:
    asked = web.retry_after({"Retry-After": str(int(time.time()) + 60)})
    assert asked is not None
    assert 55 <= asked <= 60


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_wait_is_too_strange(text: str, date: str) -> None:
    asked = web.retry_after({"Retry-After": text, "Date": date})
    assert asked is None or asked >= 0


@given(st.text(max_size=30))
def test_no_length_is_too_strange(text: str) -> None:
    given_length = web.length({"Content-Length": text})
    assert given_length is None or given_length == int(text) >= 0


def test_an_answer_that_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested"):
        web.Answer(200, {}, b"[" * 200_000).json()
    assert web.Answer(200, {}, json.dumps({"a": 1}).encode()).json() == {"a": 1}


def test_an_error_outside_of_an_exchange_is_a_mistake_of_the_program() -> None:
    with sinks.http() as sink, web.HttpSession() as session, pytest.raises(LookupError):
        session.get(sink.url, timeout=5)
    assert issubclass(BlockedError, LabError)

"""Loopback and proxies: this machine is never asked through one."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.core import web
from lab.core.errors import BlockedError
from tests.unit import sinks
from tests.unit.test_web import OK, ask


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("128.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("::2", False),
        ("", False),
    ],
)
def test_what_the_loopback_is(host: str, is_it: bool) -> None:
    assert web.is_loopback(host) is is_it


LOOPBACK = {"localhost", "127.0.0.1", "127.0.0.0/8", "::1"}
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[sinks.HttpSink]:
    with sinks.http() as proxy:
        for name in PROXIES:
            monkeypatch.setenv(name, proxy.url.replace("://", "://me:proxy-word@"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.7"])
def test_the_loopback_is_never_asked_through_a_proxy(proxied: sinks.HttpSink, host: str) -> None:
    def talk(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(OK + b"Content-Length: 2\r\n\r\nhi")

    heard: list[bytes] = []
    with sinks.raw(talk, at="0.0.0.0") as address:
        assert ask(f"http://{host}:{address.split(':')[1]}/") == b"hi"
    assert proxied.requests == []
    assert b"Proxy-Authorization" not in heard[0]


def test_a_redirect_to_the_loopback_goes_through_no_proxy_and_others_do(proxied: sinks.HttpSink) -> None:
    with sinks.http() as local:
        proxied.answer = lambda _: sinks.Answer(302, headers={"Location": local.url + "/x"})
        ask("http://mirror.example/list")
        assert [request.path for request in proxied.requests] == ["http://mirror.example/list"]
        assert "Proxy-Authorization" in proxied.requests[0].headers
        assert [request.path for request in local.requests] == ["/x"]
        assert "Proxy-Authorization" not in local.requests[0].headers


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://"])
def test_a_proxy_that_lab_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    with pytest.raises(BlockedError, match="the proxy in this environment"):
        ask("http://mirror.example/list")


@pytest.mark.parametrize(
    ("given_words", "wanted"),
    [
        ({}, set()),
        ({"http_proxy": ""}, set()),
        ({"http_proxy": "x"}, {"localhost", "127.0.0.1", "127.0.0.0/8", "::1"}),
        (
            {"HTTPS_PROXY": "x", "NO_PROXY": "a.b, localhost"},
            {"a.b", "localhost", "127.0.0.1", "127.0.0.0/8", "::1"},
        ),
        ({"http_proxy": "x", "no_proxy": "*", "NO_PROXY": "*"}, {"*"}),
    ],
)
def test_what_is_started_from_here_spares_the_loopback_too(
    given_words: dict[str, str], wanted: set[str]
) -> None:
    environment = dict(given_words)
    web.spare_loopback(environment)
    for name in ("no_proxy", "NO_PROXY"):
        words = environment.get(name, "")
        assert set(filter(None, words.split(","))) == wanted, name
    web.spare_loopback(again := dict(environment))
    assert again == environment


def test_every_command_of_lab_starts_programs_so(proxied: sinks.HttpSink) -> None:
    """The real entry point, with a task that shows what its children get."""
    show = "p.LabProgram.run = lambda self: os.execvp('env', ['env'])"
    code = f"import os, lab.cli.program as p; {show}; p.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no_proxy=localhost,127.0.0.1,127.0.0.0/8,::1" in done.stdout.splitlines()

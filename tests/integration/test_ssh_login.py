"""Logging in, and what is refused, against a real sshd and servers that pretend to be one."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError
from lab.guest import adopt
from lab.guest.login import (
    LockedKeyError,
    UnreachableError,
)
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from tests.integration import sshserver
from tests.integration.sshserver import Server, before, eventually, keygen, speaking

pytestmark = pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)")


@pytest.mark.parametrize("piece", [b"a line before the version\r\n", b"no line at all "])
def test_a_greeting_without_an_end_is_given_up(
    server: Server, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking(lambda _: iter(lambda: piece, b"")) as port:
        fake = Guest(port=port, user="x", key=server.key, known_hosts=server.known_hosts)
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            fake.open()
        with pytest.raises(UnreachableError):
            adopt.host_key(port, Deadline.after(20))
        with pytest.raises(DeadlineError, match="answers, but not with SSH"):
            wait_for_ssh(lambda: fake, Deadline.after(1), lambda: None)
        assert time.monotonic() - began < 15


def test_a_packet_of_any_length_is_not_waited_for(server: Server) -> None:
    def flood(_: bytes) -> Iterator[bytes]:
        yield b"SSH-2.0-Flood\r\n" + (0x7FFFFFF4).to_bytes(4, "big")
        while True:
            yield b"x" * 65536

    with speaking(flood) as port:
        fake = Guest(port=port, user="x", key=server.key, known_hosts=server.known_hosts)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="packet of"):
            fake.open()
        assert time.monotonic() - began < 10


def test_lines_before_the_version_are_read_over(server: Server) -> None:
    """RFC 4253, 4.2: a server may send other lines before it."""
    with before(server.port, b"Welcome to this machine.\r\nSSH is spoken here\r\n") as port:
        guest = Guest(port=port, user=getpass.getuser(), key=server.key, known_hosts=server.known_hosts)
        with wait_for_ssh(lambda: guest, Deadline.after(20), lambda: None):
            assert guest.run(["true"]).status == 0
        kind, key = server.host_key.with_suffix(".pub").read_text().split()[:2]
        assert adopt.host_key(port, Deadline.after(20)) == f"{kind} {key}"


# --- Keys that lab did not make ------------------------------------------------------------------

_FORMATS = [("ed25519", []), ("rsa", ["-m", "PEM"]), ("rsa", []), ("ecdsa", ["-m", "PKCS8"])]


def _locked(path: Path, kind: str, form: list[str]) -> Path:
    words = ["ssh-keygen", "-q", "-t", kind, *form, "-N", "a passphrase", "-f", str(path)]
    subprocess.run(words, check=True)
    return path


@contextlib.contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *keys: Path) -> Iterator[None]:
    """The user's agent with these keys in it."""
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        eventually(place.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho a passphrase\n")
        ask.chmod(0o755)
        env = os.environ | {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("kind", "form"), _FORMATS)
def test_a_key_with_a_passphrase_says_so_and_the_agent_may_have_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, form: list[str]
) -> None:
    key = _locked(tmp_path / "locked", kind, form)
    with (tmp_path / "authorized").open("a") as stream:
        stream.write((tmp_path / "locked.pub").read_text())
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(LockedKeyError, match=r"locked has a passphrase") as caught:
        server.guest(key=key).open()
    assert f"ssh-add {key}" in caught.value.hint
    with agent(monkeypatch, tmp_path, key), server.guest(key=key) as guest:
        assert guest.run(["echo", "in"]).out == "in\n"


def test_the_agent_is_asked_for_that_key_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (_locked(tmp_path / name, "ed25519", []) for name in ("mine", "other"))
    with (tmp_path / "authorized").open("a") as stream:
        stream.write((tmp_path / "other.pub").read_text())
    with agent(monkeypatch, tmp_path, other), pytest.raises(LockedKeyError):
        server.guest(key=mine).open()


def test_any_of_several_keys_may_be_the_one_that_is_let_in(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked, wrong = _locked(tmp_path / "locked", "rsa", ["-m", "PEM"]), keygen(tmp_path / "wrong")
    absent = tmp_path / "absent"
    user, known = getpass.getuser(), server.known_hosts
    with adopt._entered(server.port, user, [locked, absent, wrong, server.key], known) as guest:
        assert guest.run(["echo", "in"]).out == "in\n"
    with pytest.raises(LockedKeyError) as caught:
        adopt._entered(server.port, user, [locked, absent, wrong], known)
    assert "absent" in caught.value.tail and "refuses" in caught.value.tail

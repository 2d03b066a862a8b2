from __future__ import annotations

from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_ssh_private_key,
)

from lab.core import redact
from lab.core.errors import LabError
from lab.guest import keys


def test_keys_are_made_once_private_and_readable_by_ssh(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path / "keys", "default")
    before = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    for pair in (made.user, made.host):
        loaded = paramiko.Ed25519Key.from_private_key_file(str(pair.private))
        assert pair.public_line().split()[1] == loaded.get_base64()
        assert pair.private.stat().st_mode & 0o777 == 0o600
        assert redact.clean(pair.private_text()).strip() == "[redacted]"
    assert made.user.public_line() != made.host.public_line()
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700

    again = keys.ensure(tmp_path / "keys", "default")
    assert again == made
    assert {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == before


def test_a_public_half_lost_in_a_crash_comes_back_from_the_private_one(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path, "default")
    line = made.host.public_line()
    made.host.public.unlink()
    assert keys.ensure(tmp_path, "default").host.public_line() == line


def test_a_private_half_lost_gives_a_new_matching_pair(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path, "default")
    stale = made.user.public_line()
    made.user.private.unlink()
    user = keys.ensure(tmp_path, "default").user
    assert user.public_line() != stale
    derived = paramiko.Ed25519Key.from_private_key_file(str(user.private)).get_base64()
    assert user.public_line().split()[1] == derived


def test_a_broken_key_is_said(tmp_path: Path) -> None:
    (tmp_path / "id_ed25519").write_text("not a key")
    with pytest.raises(LabError, match="not an OpenSSH private key"):
        keys.ensure(tmp_path, "default")


def test_a_key_with_a_passphrase_is_said(tmp_path: Path) -> None:
    pair = keys.ensure(tmp_path, "default").user
    key = load_ssh_private_key(pair.private.read_bytes(), password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"a passphrase"))
    pair.private.write_bytes(locked)
    pair.public.unlink()
    with pytest.raises(LabError, match="has a passphrase"):
        keys.ensure(tmp_path, "default")


def test_known_hosts_pins_the_host_key_at_its_port_only(tmp_path: Path) -> None:
    host = keys.ensure(tmp_path, "default").host
    path = keys.write_known_hosts(tmp_path / "known_hosts", host, 10022)
    pinned = paramiko.HostKeys(str(path))
    key = paramiko.Ed25519Key.from_private_key_file(str(host.private))
    assert pinned.check("[127.0.0.1]:10022", key)
    assert not pinned.check("[127.0.0.1]:10023", key)
    assert keys.known_hosts_line(host, 22).startswith("127.0.0.1 ssh-ed25519 ")


def test_a_pinned_host_key_is_believed_and_stays(tmp_path: Path) -> None:
    """Of a VM that lab did not make: the first key it showed, whatever its kind."""
    first = paramiko.RSAKey.generate(1024)
    own = keys.ensure(tmp_path, "vagrant").host.public_line()
    keys.pin(tmp_path, f"ssh-rsa {first.get_base64()}")
    made = keys.ensure(tmp_path, "vagrant")
    keys.pin(tmp_path, own)
    assert keys.ensure(tmp_path, "vagrant") == made
    pinned = paramiko.HostKeys(str(keys.write_known_hosts(tmp_path / "known_hosts", made.host, 2222)))
    assert pinned.check("[127.0.0.1]:2222", first)

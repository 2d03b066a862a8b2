"""Signatures made by a real gpg."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from lab.core.errors import BlockedError
from lab.images.signature import verify_detached
from tests.capabilities import needs
from tests.signing import LONG_AGO, Signer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "SHA256SUMS"
    path.write_text("0" * 64 + " *disk.img\n")
    return path


def test_accepts_the_pinned_key(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"], signing_keys["other"])
    spaced = " ".join([signing_keys["good"][:20], signing_keys["good"][20:]])
    verify_detached(data, signer.sign(data, signing_keys["good"]), ring, spaced)


def test_tells_changed_data(signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"])
    signature = signer.sign(data, signing_keys["good"])
    data.write_text(data.read_text().replace("0", "1", 1))
    with pytest.raises(BlockedError, match="does not fit"):
        verify_detached(data, signature, ring, signing_keys["good"])


def test_tells_a_changed_signature(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"])
    signature = signer.sign(data, signing_keys["good"])
    changed = bytearray(signature.read_bytes())
    changed[-1] ^= 1
    signature.write_bytes(changed)
    with pytest.raises(BlockedError, match="was not accepted"):
        verify_detached(data, signature, ring, signing_keys["good"])


def test_refuses_a_key_that_is_not_in_the_keyring(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"])
    with pytest.raises(BlockedError, match="another key"):
        verify_detached(data, signer.sign(data, signing_keys["other"]), ring, signing_keys["good"])


def test_refuses_a_key_of_the_keyring_that_is_not_the_pinned_one(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"], signing_keys["other"])
    with pytest.raises(BlockedError, match=f"signed by {signing_keys['other']}"):
        verify_detached(data, signer.sign(data, signing_keys["other"]), ring, signing_keys["good"])


def test_refuses_an_expired_key(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["expired"])
    signature = signer.sign(data, signing_keys["expired"], LONG_AGO)
    with pytest.raises(BlockedError, match="key has expired"):
        verify_detached(data, signature, ring, signing_keys["expired"])


def test_refuses_a_revoked_key(signer: Signer, data: Path, tmp_path: Path) -> None:
    revoked = signer.key("revoked@example.org")
    signature = signer.sign(data, revoked)
    certificate = (signer.home / "openpgp-revocs.d" / f"{revoked}.rev").read_text().replace("\n:---", "\n---")
    (tmp_path / "revocation").write_text(certificate)
    signer.gpg("--import", str(tmp_path / "revocation"))
    ring = signer.export(tmp_path / "ring.gpg", revoked)
    with pytest.raises(BlockedError, match="revoked"):
        verify_detached(data, signature, ring, revoked)


def test_refuses_a_keyring_without_the_pinned_key(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["other"])
    with pytest.raises(BlockedError, match=f"does not hold the key {signing_keys['good']}"):
        verify_detached(data, signer.sign(data, signing_keys["good"]), ring, signing_keys["good"])
    ring.write_text("no keys")
    with pytest.raises(BlockedError, match="no file of public keys"):
        verify_detached(data, signer.sign(data, signing_keys["good"]), ring, signing_keys["good"])


def test_refuses_an_expired_signature(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    lasting = signer.key("lasting@example.org", "never", LONG_AGO)
    ring = signer.export(tmp_path / "ring.gpg", lasting)
    signature = signer.sign(data, lasting, LONG_AGO, "--default-sig-expire", "1d")
    with pytest.raises(BlockedError, match="signature has expired"):
        verify_detached(data, signature, ring, lasting)


def test_refuses_sha1(signer: Signer, data: Path, tmp_path: Path) -> None:
    signer.gpg("--quick-gen-key", "Old <old@example.org>", "rsa2048", "sign", "never")
    listed = signer.gpg("--with-colons", "--list-keys", "old@example.org")
    old = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    ring = signer.export(tmp_path / "ring.gpg", old)
    signature = signer.sign(data, old, "", "--digest-algo", "SHA1")
    with pytest.raises(BlockedError, match="a hash that can be forged"):
        verify_detached(data, signature, ring, old)


@pytest.mark.parametrize("content", [b"", b"no signature at all\n"])
def test_refuses_what_is_no_signature(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path, content: bytes
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"])
    signature = tmp_path / "empty.gpg"
    signature.write_bytes(content)
    with pytest.raises(BlockedError, match="was not accepted"):
        verify_detached(data, signature, ring, signing_keys["good"])


def test_refuses_a_signed_message_in_place_of_a_signature(
    signer: Signer, signing_keys: dict[str, str], data: Path, tmp_path: Path
) -> None:
    ring = signer.export(tmp_path / "ring.gpg", signing_keys["good"])
    message = tmp_path / "message.gpg"
    other = tmp_path / "other"
    other.write_text("something else")
    signer.gpg("--local-user", signing_keys["good"], "--output", str(message), "--sign", str(other))
    with pytest.raises(BlockedError, match="was not accepted"):
        verify_detached(data, message, ring, signing_keys["good"])


def test_names_a_missing_file(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BlockedError, match=r"none\.gpg is missing"):
        verify_detached(data, tmp_path / "none.gpg", tmp_path / "ring.gpg", "0" * 40)


@needs("gpg")
def test_the_shipped_key_is_the_pinned_one(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "images" / "guest"
    manifest = tomllib.loads((folder / "ubuntu-24.04.toml").read_text())
    argv = [
        "gpg",
        "--homedir",
        str(tmp_path),
        "--with-colons",
        "--show-keys",
        str(folder / manifest["keyring"]),
    ]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")] == [
        manifest["fingerprint"]
    ]

"""The two ed25519 keys of one lab: the user's, and the VM's host key that the ssh client pins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from lab.core import files
from lab.core.errors import LabError
from lab.engines.protocol import LOOPBACK

_PINNED = "pinned.pub"


@dataclass(frozen=True)
class KeyPair:
    """An OpenSSH key as two files: `private` (mode 0600) and `public`, one line."""

    private: Path
    public: Path

    def private_text(self) -> str:
        """The private key in OpenSSH's format, as the file has it."""
        return self.private.read_text()

    def public_line(self) -> str:
        """`ssh-ed25519 AAAA… comment`, without the line's end."""
        return self.public.read_text().strip()


@dataclass(frozen=True)
class Keys:
    """Of one lab: who logs in, and what the VM shows itself by."""

    user: KeyPair
    host: KeyPair


def ensure(folder: Path, name: str) -> Keys:
    """The keys in `folder`, made there if missing; what exists is never made again.

    `name` (the lab's) goes into the keys' comments. Raises LabError for a file that is not a key.
    """
    folder.mkdir(mode=0o700, exist_ok=True)  # not the lab's own: of one that was destroyed nothing comes back
    files.keep_private(folder)
    user = ensure_pair(folder / "id_ed25519", f"lab-{name}")
    host = ensure_pair(folder / "host_ed25519", f"host-of-lab-{name}")
    pinned = folder / _PINNED
    return Keys(user, KeyPair(host.private, pinned) if pinned.exists() else host)


def pin(folder: Path, key: str) -> None:
    """Believe the host key `kind base64` in the place of lab's own, for a VM that lab did not make.

    The first one stays: one that differs later is refused at the login.
    """
    pinned = folder / _PINNED
    if not pinned.exists():
        files.write_atomic(pinned, f"{key} pinned-on-first-contact\n")


def known_hosts_line(host: KeyPair, port: int) -> str:
    """The known_hosts line that pins `host` at the loopback's `port`."""
    kind, key = host.public_line().split()[:2]
    place = LOOPBACK if port == 22 else f"[{LOOPBACK}]:{port}"
    return f"{place} {kind} {key}\n"


def write_known_hosts(path: Path, host: KeyPair, port: int) -> Path:
    """Write a known_hosts file with nothing but this pin."""
    files.write_atomic(path, known_hosts_line(host, port))
    return path


def write_pinned(path: Path, host: str, port: int, key: str) -> None:
    """Write a known_hosts file with nothing but `key` (`kind base64`) for a machine at `host`."""
    files.write_atomic(path, f"{host if port == 22 else f'[{host}]:{port}'} {key}\n")


def ensure_pair(private: Path, comment: str) -> KeyPair:
    """The key pair in the file `private`, made there if missing. Raises LabError for what is no key."""
    public = private.with_name(f"{private.name}.pub")
    if not private.exists():
        text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        files.write_atomic(private, text)
        public.unlink(missing_ok=True)  # one of another key would lock the user out
    if not public.exists():
        files.write_atomic(public, f"{_public_of(private)} {comment}\n")
    return KeyPair(private, public)


def _public_of(private: Path) -> str:
    try:
        key = load_ssh_private_key(private.read_bytes(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        locked = isinstance(error, TypeError)  # cryptography's word for a passphrase
        raise LabError(
            f"{private} has a passphrase" if locked else f"{private} is not an OpenSSH private key",
            hint="`invoke lab.destroy` and `invoke lab.up` make a new lab with new keys",
            evidence=[private],
        ) from error
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

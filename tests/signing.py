"""OpenPGP keys and signatures made by a real gpg."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.packages import find_program

LONG_AGO = "20200101T000000!"


class Signer:
    """A GnuPG home with keys of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *words: str, at: str = "") -> str:
        time = ["--faked-system-time", at] if at else []
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--passphrase", "", *time, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def key(self, mail: str, expire: str = "never", at: str = "") -> str:
        """A new signing key's fingerprint."""
        self.gpg("--quick-gen-key", f"Test <{mail}>", "ed25519", "sign", expire, at=at)
        listed = self.gpg("--with-colons", "--list-keys", mail)
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def export(self, target: Path, *keys: str) -> Path:
        self.gpg("--output", str(target), "--export", *keys)
        return target

    def sign(self, data: Path, key: str, at: str = "", *more: str) -> Path:
        target = data.with_name(data.name + ".gpg")
        self.gpg("--local-user", key, *more, "--output", str(target), "--detach-sign", str(data), at=at)
        return target


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    if not (find_program("gpg") and find_program("gpgconf")):
        pytest.skip("needs gpg and gpgconf")
    home = Path(tempfile.mkdtemp(prefix="lab-gpg-"))  # short: the agent's socket lives in it
    try:
        yield Signer(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def signing_keys(signer: Signer) -> dict[str, str]:
    return {
        "good": signer.key("good@example.org"),
        "other": signer.key("other@example.org"),
        "expired": signer.key("expired@example.org", "1d", LONG_AGO),
    }

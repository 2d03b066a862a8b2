"""Detached OpenPGP signatures, checked by gpgv against one pinned key."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.deadline import Deadline
from lab.errors import BlockedError
from lab.proc import Completed, run, tail

_SECONDS = 60.0
_PREFIX = "[GNUPG:] "

# Status words of gnupg's doc/DETAILS that condemn a signature, and what they mean. The order
# matters: the first that appears is the one told.
_REFUSALS = {
    "BADSIG": "the signature does not fit: the file or the signature was changed",
    "EXPKEYSIG": "the signing key has expired",
    "REVKEYSIG": "the signing key was revoked",
    "EXPSIG": "the signature has expired",
    "NO_PUBKEY": "it was signed by another key",
    "ERRSIG": "the signature could not be checked",
    "NODATA": "the signature file holds no signature",
    "UNEXPECTED": "the signature file is not a detached signature",
}


def verify_detached(data: Path, signature: Path, keyring: Path, fingerprint: str) -> None:
    """Return if `signature` is a good one of the whole file `data` by the key `fingerprint`.

    `keyring` is a file of binary public keys; only it is looked at, no keyring of the user.
    `fingerprint` is the primary key's, 40 hex digits. Raises BlockedError saying what is
    wrong: an unsigned or changed file, another, expired or revoked key, SHA-1, no gpgv.
    """
    for path in (data, signature, keyring):
        if not path.is_file():
            raise BlockedError(f"{path} is missing, so {data.name} cannot be verified")
    if shutil.which("gpgv") is None:
        raise BlockedError(
            "`gpgv` is not installed, so signatures cannot be verified",
            hint="`invoke lab.doctor` shows how to install it",
        )
    done = run(
        [
            "gpgv",
            *("--homedir", keyring.resolve().parent),
            *("--keyring", keyring.resolve()),
            *("--weak-digest", "SHA1"),
            *("--status-fd", "1"),
            "--",
            signature.resolve(),
            data.resolve(),
        ],
        check=False,
        deadline=Deadline.after(_SECONDS),
    )
    wrong = _what_is_wrong(done, fingerprint)
    if wrong:
        raise BlockedError(
            f"the signature of {data.name} was not accepted: {wrong}",
            hint="fetch again; if it stays, the mirror serves something else than the publisher signed",
            evidence=[data, signature],
            tail=tail(done.err),
        )


def _what_is_wrong(done: Completed, fingerprint: str) -> str:
    """Empty when good. Exit status 0 alone proves nothing: an expired key gives it too."""
    lines = [line[len(_PREFIX) :].split() for line in done.out.splitlines() if line.startswith(_PREFIX)]
    words = {line[0] for line in lines if line}
    for word, meaning in _REFUSALS.items():
        if word in words:
            return meaning
    signers = {line[-1].upper() for line in lines if line[0] == "VALIDSIG" and len(line) >= 11}
    pinned = fingerprint.replace(" ", "").upper()
    if signers and signers != {pinned}:
        return f"it was signed by {', '.join(sorted(signers))}, expected {pinned}"
    if done.status != 0 or not signers or "GOODSIG" not in words:
        return "gpgv found no good signature"
    return ""

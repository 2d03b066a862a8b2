"""OpenPGP signatures, checked by Sequoia against pinned keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm

from lab.core.errors import BlockedError


def verify_detached(data: Path, signature: Path, keyring: Path, fingerprint: str) -> None:
    """Return if `signature` is a good one of the whole file `data` by the key `fingerprint`.

    `keyring` is a file of public keys, binary or armored; no keyring of the user is looked at.
    `fingerprint` is the primary key's, 40 hex digits. Raises BlockedError saying what is
    wrong: an unsigned or changed file, another, expired or revoked key, SHA-1.
    """
    for path in (data, signature, keyring):
        if not path.is_file():
            raise BlockedError(f"{path} is missing, so {data.name} cannot be verified")
    fault = _fault(data, signature, keyring, fingerprint.replace(" ", "").lower())
    if fault:
        raise BlockedError(
            f"the signature of {data.name} was not accepted: {fault}",
            hint="fetch again; if it stays, the mirror serves something else than the publisher signed",
            evidence=[data, signature],
        )


def verify_clearsigned(content: bytes, name: str, keyring: Path, fingerprints: Collection[str]) -> bytes:
    """The text that is signed in `content`, without what stands around it.

    At least one of the keys `fingerprints` (40 hex digits), taken from the file `keyring`, must have
    signed it, and be neither expired nor revoked. Raises BlockedError; `name` is what it calls the content.
    """
    pinned = {fingerprint.replace(" ", "").lower() for fingerprint in fingerprints}
    try:
        keys = [cert for cert in Cert.split_file(str(keyring)) if cert.fingerprint in pinned]
        current = [key for key in keys if not key.is_revoked and not _is_past(key.expiration)]
        verified = verify(bytes=content, store=lambda _ids: current)
    except RuntimeError as error:
        raise BlockedError(
            f"{name} is signed by no key that is believed: {_first_line(error)}",
            hint="the mirror serves something else than Debian signed, or lab's keys are too old for it",
            evidence=[keyring],
        ) from error
    if verified.bytes is None or not any(valid.certificate in pinned for valid in verified.valid_sigs):
        raise BlockedError(f"{name} is signed by no key that is believed", evidence=[keyring])
    return verified.bytes


def _first_line(error: RuntimeError) -> str:
    """Sequoia's words, without the backtrace that follows them where RUST_BACKTRACE is set."""
    return str(error).partition("\n")[0]


def _fault(data: Path, signature: Path, keyring: Path, pinned: str) -> str:
    """What is wrong with the signature; empty when it is good.

    Sequoia decides; besides, an expired key is refused, which it accepts for what was signed in its time.
    """
    try:
        keys = [cert for cert in Cert.split_file(str(keyring)) if cert.fingerprint == pinned]
    except RuntimeError as error:
        return f"{keyring.name} is no file of public keys ({_first_line(error)})"
    if not keys:
        return f"{keyring.name} does not hold the key {pinned.upper()}"
    if keys[0].is_revoked:
        return "the signing key was revoked"
    if _is_past(keys[0].expiration):
        return "the signing key has expired"
    try:
        packet = Sig.from_file(str(signature))
    except RuntimeError as error:
        return f"the signature file holds no detached signature ({_first_line(error)})"
    try:
        accepted = verify(file=str(data), store=lambda _ids: keys, signature=packet).valid_sigs
    except RuntimeError as error:
        return (
            _refusal(packet, pinned)
            or f"the file or the signature was changed, it does not fit ({_first_line(error)})"
        )
    return "" if any(valid.certificate == pinned for valid in accepted) else "it was signed by another key"


def _refusal(packet: Sig, pinned: str) -> str:
    """What the signature says of itself that explains why it was not accepted; empty when nothing does."""
    if _is_past(packet.expiration):
        return "the signature has expired"
    if packet.hash_algorithm in (HashAlgorithm.SHA1, HashAlgorithm.MD5):
        return "it was made with a hash that can be forged"
    issuer = packet.issuer_fingerprint or packet.issuer_key_id or "an unnamed key"
    if not pinned.endswith(issuer):
        return f"it was signed by another key, signed by {issuer.upper()}, expected {pinned.upper()}"
    return ""


def _is_past(moment: datetime | None) -> bool:
    return moment is not None and moment <= datetime.now(UTC)

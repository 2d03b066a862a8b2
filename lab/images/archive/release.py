"""An archive's InRelease: signed by its own keys, for the suite that is wanted, and not out of date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.deb822 import Release as Deb822Release

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.core.web import HttpSession, Patience, shown
from lab.images.signature import verify_clearsigned
from lab.images.transport import fetch_bytes

_LIMIT = 8 << 20
"""Bytes; that of a Debian release has about 140,000."""


@dataclass(frozen=True)
class ArchiveKeys:
    """The file of the archive's public keys, and the fingerprints of those that are believed."""

    file: Path
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """A file as the release lists it: its SHA-256 in hex, and its bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class SuiteRelease:
    """A signed release: its suite's folder in the archive, and its files by their path in that folder."""

    folder: str
    files: Mapping[str, Listed]


def read_release(
    session: HttpSession, base: str, suite: str, keys: ArchiveKeys, deadline: Deadline, patience: Patience
) -> SuiteRelease:
    """The release of `suite` in the archive at `base`.

    Raises BlockedError when it cannot be fetched, is signed by none of `keys`, is another suite's, or is past
    the date until which its publisher answers for it; DeadlineError.
    """
    folder = f"{base}dists/{suite}/"
    url = folder + "InRelease"
    content = fetch_bytes(session, url, limit=_LIMIT, deadline=deadline, patience=patience)
    text = verify_clearsigned(content, shown(url), keys.file, keys.fingerprints)
    fields = Deb822Release(text.decode("utf-8", "replace"))
    if suite not in (fields.get("Suite"), fields.get("Codename")):
        raise BlockedError(
            f"{shown(url)} is of suite {fields.get('Suite', 'unnamed')!r}, not of {suite!r}",
            hint="name an archive of Debian's own layout (images.debian_mirror)",
        )
    _require_current(fields.get("Valid-Until", ""), shown(url))
    listed = {
        row["name"]: Listed(row["sha256"].lower(), int(row["size"])) for row in fields.get("SHA256", [])
    }
    return SuiteRelease(folder, listed)


def _require_current(valid_until: str, name: str) -> None:
    if not valid_until:
        return  # a stable release has none
    try:
        end = parsedate_to_datetime(valid_until)
    except ValueError as error:
        raise BlockedError(f"{name} names no date until which it is valid: {valid_until!r}") from error
    if end.replace(tzinfo=end.tzinfo or UTC) < datetime.now(UTC):
        raise BlockedError(
            f"{name} was valid until {valid_until}: this mirror is out of date",
            hint="name another mirror (images.debian_mirror), and look at this machine's clock",
        )

"""Docker's own package repository, its signing key pinned."""

from __future__ import annotations

import base64
import hashlib
import shlex
import struct
from collections.abc import Iterator

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, LabError
from lab.core.steps import Step
from lab.guest import apt
from lab.guest.ssh import Guest

FINGERPRINT = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
"""Of Docker's release key for Debian and Ubuntu."""

_BASE = "https://download.docker.com/linux"
_KEYRING = "/etc/apt/keyrings/docker.gpg"
_SOURCES = "/etc/apt/sources.list.d/docker.sources"
_DISTRIBUTIONS = ("debian", "ubuntu")
_PUBLIC_KEY = 6


def add(guest: Guest, step: Step, deadline: Deadline) -> None:
    """Add the repository to the VM's apt, and read its lists.

    Raises BlockedError when it cannot be reached or is not for this system, LabError when its
    key is not the pinned one: nothing is added then.
    """
    system, codename = _system(guest)
    key = _fetch(guest, f"{_BASE}/{system}/gpg", step, deadline)
    _write(guest, _KEYRING, only_pinned(key))
    source = (
        f"Types: deb\nURIs: {_BASE}/{system}\nSuites: {codename}\nComponents: stable\n"
        f"Architectures: amd64\nSigned-By: {_KEYRING}\n"
    )
    _write(guest, _SOURCES, source.encode())
    step.note(f"added Docker's repository for {system} {codename}, signed by {FINGERPRINT}")
    apt.update(guest, step, deadline)


def _system(guest: Guest) -> tuple[str, str]:
    fields = dict(line.split("=", 1) for line in guest.read("/etc/os-release").splitlines() if "=" in line)
    system, codename = (shlex.split(fields.get(name, ""))[:1] for name in ("ID", "VERSION_CODENAME"))
    if not codename or not system or system[0] not in _DISTRIBUTIONS:
        raise BlockedError(
            f"Docker's repository is not for {' '.join([*system, *codename]) or 'this system'}",
            hint="use the distribution's own package: docker.package = docker.io",
        )
    return system[0], codename[0]


def _fetch(guest: Guest, url: str, step: Step, deadline: Deadline) -> bytes:
    # Through base64: it may be binary, and a command's output is text.
    script = 'set -e; curl -fsSL --proto =https --retry 3 --connect-timeout 30 "$0" | base64'
    words = ["bash", "-o", "pipefail", "-c", script, url]
    try:
        try:
            text = guest.run(words, deadline=deadline).out
        except CommandError as error:
            if not (note := apt.correct_clock(guest, error, deadline)):
                raise
            step.note(note)
            text = guest.run(words, deadline=deadline).out
    except CommandError as error:
        other = "use the distribution's own package: docker.package = docker.io"
        gone = "returned error: 404" in error.tail
        raise BlockedError(
            f"there is no {url}" if gone else f"the VM cannot fetch {url}",
            hint=other if gone else f"check the host's network and proxy, or {other}",
            tail=error.tail,
        ) from error
    return base64.b64decode(text)


def _write(guest: Guest, path: str, content: bytes) -> None:
    script = 'set -e; mkdir -p "${0%/*}"; base64 -d > "$0.new"; chmod 644 "$0.new"; mv "$0.new" "$0"'
    guest.run(["sh", "-c", script, path], sudo=True, stdin=base64.b64encode(content))


def only_pinned(key: bytes) -> bytes:
    """The binary keyring in `key` (armored or not), if the pinned key is the only one in it.

    Raises LabError otherwise.
    """
    data = _dearmored(key)
    try:
        keys = [_fingerprint(body) for tag, body in _packets(data) if tag == _PUBLIC_KEY]
    except (IndexError, struct.error) as error:
        raise LabError("what Docker's repository offers as its key is no OpenPGP key") from error
    if keys != [FINGERPRINT]:
        raise LabError(
            f"Docker's repository offers another key: {', '.join(keys) or 'none'} instead of {FINGERPRINT}",
            hint="something between here and Docker may be rewriting downloads; nothing was installed",
        )
    return data


def _dearmored(key: bytes) -> bytes:
    if not key.lstrip().startswith(b"-----BEGIN"):
        return key
    lines = key.decode("ascii", "replace").strip().splitlines()
    start = next((n for n, line in enumerate(lines) if not line.strip()), 0) + 1
    body = [line for line in lines[start:] if not line.startswith(("-----", "="))]
    try:
        return base64.b64decode("".join(body), validate=True)
    except ValueError as error:
        raise LabError("what Docker's repository offers as its key is no OpenPGP key") from error


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """OpenPGP packets as (tag, body), old and new format (RFC 9580, section 4.2)."""
    at = 0
    while at < len(data):
        first = data[at]
        if not first & 0x80:
            raise IndexError("not a packet")
        if first & 0x40:
            tag, (size, at) = first & 0x3F, _new_size(data, at + 1)
        else:
            tag, width = first >> 2 & 0x0F, (1, 2, 4, 0)[first & 3]
            size, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        if not size or at + size > len(data):
            raise IndexError("a packet ends early")
        yield tag, data[at : at + size]
        at += size


def _new_size(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return struct.unpack_from(">I", data, at + 1)[0], at + 5
    raise IndexError("a packet in parts")


def _fingerprint(body: bytes) -> str:
    """A version 4 key's fingerprint."""
    return hashlib.sha1(b"\x99" + struct.pack(">H", len(body)) + body).hexdigest().upper()  # noqa: S324

"""Docker's own package repository, its signing key pinned."""

from __future__ import annotations

import base64
import shlex

from pysequoia import Cert

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


def only_pinned(key: bytes, fingerprint: str = FINGERPRINT) -> bytes:
    """The binary keyring in `key` (armored or not), if the key `fingerprint` is the only one in it.

    Raises LabError otherwise.
    """
    try:
        certificates = Cert.split_bytes(key)
    except RuntimeError as error:
        raise LabError("what Docker's repository offers as its key is no OpenPGP key") from error
    offered = [certificate.fingerprint.upper() for certificate in certificates]
    if offered != [fingerprint]:
        others = ", ".join(offered) or "none"
        raise LabError(
            f"Docker's repository offers another key: {others} instead of {fingerprint}",
            hint="something between here and Docker may be rewriting downloads; nothing was installed",
        )
    return bytes(certificates[0])

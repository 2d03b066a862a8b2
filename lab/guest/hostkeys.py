"""Whom to believe on the way to somebody's machine, by the user's known_hosts, and which key opens it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lab.core import proc
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError, DeadlineError, LabError
from lab.guest import login
from lab.guest.login import AuthRefusedError, HostKeyError, UnreachableError

if TYPE_CHECKING:
    import paramiko

_SECONDS = 20.0
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
Dial = Callable[[Deadline], socket.socket]


@dataclass(frozen=True)
class HostKey:
    """A public key that an SSH server shows: its kind, such as ssh-ed25519, and the key in base64."""

    kind: str
    base64: str

    @property
    def fingerprint(self) -> str:
        """As `ssh` shows it: `ED25519 SHA256:…`."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        name = re.sub(r"^(ssh-|ecdsa-sha2-.*)", lambda part: "ECDSA" if part[0] != "ssh-" else "", self.kind)
        return f"{name.upper()} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    def __str__(self) -> str:
        return f"{self.kind} {self.base64}"


@dataclass(frozen=True)
class Known:
    """What known_hosts files have under one name."""

    keys: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()


def known(name: str, files: Sequence[Path]) -> Known:
    """The host keys under `name` in these known_hosts files, hashed names and patterns included.

    A certificate authority's key is none of the host's own, and is left out.
    """
    keys: list[HostKey] = []
    revoked: list[HostKey] = []
    for path in files:
        if not path.is_file():
            continue
        words = ["ssh-keygen", "-F", name, "-f", str(path)]
        done = proc.run(words, check=False, deadline=Deadline.after(_SECONDS))
        for line in done.out.splitlines():
            fields = line.split()
            if not fields or line.startswith("#") or fields[0] == "@cert-authority":
                continue
            marked = fields[0] == "@revoked"
            with contextlib.suppress(ValueError):
                kind, key = fields[2:4] if marked else fields[1:3]
                (revoked if marked else keys).append(HostKey(kind, key))
    return Known(tuple(keys), tuple(revoked))


def judge(shown: HostKey, name: str, believed: Known) -> Literal["known", "unknown"]:
    """Whether a host's key is known. Raises HostKeyError for a revoked one, or another than is known."""
    if shown in believed.revoked:
        raise HostKeyError(f"the host key of {name} is marked as revoked in known_hosts")
    if shown in believed.keys:
        return "known"
    if believed.keys:
        raise HostKeyError(
            f"{name} shows another host key than known_hosts has: {shown.fingerprint}",
            hint=f"is it another machine now? If so: `ssh-keygen -R '{name}'`, and log in by ssh once",
            tail="\n".join(f"known: {key.fingerprint}" for key in believed.keys),
        )
    return "unknown"


def shown(dial: Dial, believed: Known, deadline: Deadline) -> HostKey:
    """The host key that the server shows: one of a kind that is known, where it has such a one.

    Raises UnreachableError, DeadlineError, InterruptedByUser.
    """
    with _transport(dial, deadline) as transport:
        _prefer(transport, [key.kind for key in believed.keys])
        _begin(transport, deadline)
        key = transport.get_remote_server_key()
        return HostKey(key.get_name(), key.get_base64())


@dataclass(frozen=True)
class Candidate:
    """A key that may open a machine: `path` is its file, or where its public half is to be kept."""

    path: Path
    key: paramiko.PKey


def candidates(
    paths: Sequence[Path], agent: str, only_these: bool, store: Path
) -> tuple[list[Candidate], list[LabError]]:
    """The keys to try: those of the files that there are, then the agent's; and why some cannot be tried.

    `store` is where the public half of a key that only the agent has is to be written.
    """
    usable: list[Candidate] = []
    refusals: list[LabError] = []
    for path in paths:
        if not path.is_file() and not path.with_name(f"{path.name}.pub").is_file():
            continue
        place = path if path.is_file() else path.with_name(f"{path.name}.pub")
        try:
            usable.append(Candidate(place, login.private_key(place, agent)))
        except LabError as error:
            refusals.append(error)
    tried = {candidate.key.asbytes() for candidate in usable}
    for key in () if only_these else login.agent_keys(agent):
        if key.asbytes() not in tried:
            usable.append(Candidate(store, key))
    return usable, refusals


def opening(
    dial: Dial,
    user: str,
    host_key: HostKey,
    keys: Sequence[Candidate],
    refusals: Sequence[LabError],
    deadline: Deadline,
) -> Candidate:
    """The first of the keys that the machine lets in. Raises AuthRefusedError when it lets in none, or
    LockedKeyError when none could be tried for its passphrase; HostKeyError, UnreachableError, DeadlineError.
    """
    left = list(keys)
    refused: list[str] = []
    while left:
        before = len(left)
        with _transport(dial, deadline) as transport:
            _prefer(transport, [host_key.kind])
            _begin(transport, deadline)
            key = transport.get_remote_server_key()
            if HostKey(key.get_name(), key.get_base64()) != host_key:
                raise HostKeyError("the machine shows another host key than a moment ago")
            while left and transport.is_active():
                candidate = left.pop(0)
                if _lets_in(transport, user, candidate, refused):
                    return candidate
        if len(left) == before:  # it breaks off before any key is tried
            break
    why = [*refused, *(error.what for error in refusals)]
    if not keys and refusals:
        raise refusals[0]
    raise AuthRefusedError(
        f"the machine lets {user} in with none of {len(keys)} keys" if keys else "there is no SSH key to try",
        hint=f"lab logs in with a key: `ssh-copy-id` puts one there, `ssh-add` gives one to your agent, and "
        f"ssh_config's IdentityFile names one for user {user}",
        tail="\n".join(why),
    )


def _lets_in(transport: paramiko.Transport, user: str, candidate: Candidate, refused: list[str]) -> bool:
    import paramiko

    name = candidate.path.name
    try:
        missing = transport.auth_publickey(user, candidate.key)
    except paramiko.BadAuthenticationType as error:
        raise AuthRefusedError(
            f"the machine takes no keys from {user}: {', '.join(error.allowed_types)}",
            hint="lab logs in with a key, and never asks for a password",
        ) from error
    except login.transport_errors() as error:
        refused.append(f"{name}: {error}")
        return False
    if missing:
        raise BlockedError(
            f"the machine wants more of {user} than a key: {', '.join(missing)}",
            hint="lab logs in with a key alone",
        )
    return True


@contextlib.contextmanager
def _transport(dial: Dial, deadline: Deadline) -> Iterator[paramiko.Transport]:
    from lab.guest import connection  # paramiko takes a while to load

    try:
        with dial(deadline) as sock, connection.bounded_transport(sock) as transport:
            transport.banner_timeout = login.LOGIN_SECONDS
            transport.auth_timeout = login.LOGIN_SECONDS
            yield transport
    except login.transport_errors() as error:
        if deadline.passed:
            raise DeadlineError("the SSH server did not answer in time", tail=str(error)) from error
        raise UnreachableError(f"the SSH server is not reached: {error}") from error


def _prefer(transport: paramiko.Transport, kinds: Sequence[str]) -> None:
    """Ask for a host key of these kinds first: a server has several, and shows one."""
    options = transport.get_security_options()
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
    first = [name for name in dict.fromkeys(wanted) if name in options.key_types]
    options.key_types = (*first, *(name for name in options.key_types if name not in first))


def _begin(transport: paramiko.Transport, deadline: Deadline) -> None:
    import threading

    met, until = threading.Event(), deadline.within(login.LOGIN_SECONDS)
    transport.start_client(met)
    while not met.wait(0.1) and transport.is_active():
        check_cancelled()
        if until.passed:
            raise DeadlineError("the SSH server showed no host key in time")
    if error := transport.get_exception():
        raise error

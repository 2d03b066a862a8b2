"""Logging in over SSH: whom to believe, with which key, and what a refusal means."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.deadline import Deadline, cancelled, check_cancelled
from lab.core.errors import BlockedError, DeadlineError, LabError

if TYPE_CHECKING:
    import paramiko

    from lab.guest.connection import GuestConnection

LOGIN_SECONDS = 60.0
"""How long banner, key exchange and authentication may each take: slow when emulated."""

_KEEPALIVE_SECONDS = 15
GREETING_BYTES = 64 << 10
"""Of the lines that an SSH server may send before its version (RFC 4253, 4.2), and that."""

# What paramiko would print of a broken connection is in the error that lab raises.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

Banner = socket.socket
"""A connected socket whose first bytes, not yet read, are an SSH server's greeting."""


class UnreachableError(LabError):
    """Nothing there speaks SSH (yet): the port is closed, silent, or breaks off."""


class AuthRefusedError(LabError):
    """The server is there and refuses lab's key (yet)."""


class ConnectionLostError(LabError):
    """The connection broke while a command ran: whether it finished is not known."""


class LockedKeyError(BlockedError):
    """The private key has a passphrase, and the user's agent does not have it."""


class HostKeyError(LabError):
    """Something else answers on this port: its host key is not the one lab gave the VM."""


def connect(
    host: str,
    port: int,
    *,
    user: str,
    key: Path,
    known_hosts: Path,
    deadline: Deadline,
    banner: Banner | None = None,
    reach: Callable[[Deadline], socket.socket] | None = None,
    agent: str = "",
) -> GuestConnection:
    """An open Fabric connection that trusts the keys in `known_hosts` and nothing else.

    No other key, no user's ssh or Fabric configuration; the user's agent (`agent`, or the environment's) is
    asked for `key` alone, and only where that has a passphrase. `reach` makes the connection where that takes
    more than host and port. Raises HostKeyError, AuthRefusedError, UnreachableError, LockedKeyError,
    DeadlineError.
    """
    from lab.guest.connection import GuestConnection

    sock = banner or dial(host, port, deadline, reach)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Else a command's second message waits for the answer to its first: 40 ms on the loopback.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seconds = max(1.0, min(LOGIN_SECONDS, deadline.left))
    trusted = pinned_keys(known_hosts)
    connection = GuestConnection(sock, host, port, user, private_key(key, agent), trusted, seconds)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            connection.open()
        except BaseException as error:  # carried to the waiting thread
            failure.append(error)

    thread = threading.Thread(target=work, name="lab-login", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if cancelled.is_set() or deadline.passed:
            sock.close()
            thread.join(5)
            connection.client.close()
            check_cancelled()
            raise DeadlineError(f"logging in over SSH did not end in {deadline.seconds:.0f} s")
    if failure:
        announcement = _announcement(connection)
        sock.close()
        raise _explained(failure[0], host, port, user, announcement) from failure[0]
    connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
    return connection


def dial(
    host: str, port: int, deadline: Deadline, reach: Callable[[Deadline], socket.socket] | None = None
) -> socket.socket:
    """A connected socket, made by `reach` where that is given. Raises UnreachableError."""
    try:
        if reach is not None:
            return reach(deadline)
        return socket.create_connection((host, port), timeout=max(0.1, min(LOGIN_SECONDS, deadline.left)))
    except OSError as error:
        if reach is not None:
            raise UnreachableError(f"{host}:{port} is not reached: {error.strerror or error}") from error
        raise UnreachableError(
            f"nothing listens on {host}:{port}: {error.strerror or error}",
            hint="`invoke lab.status` says whether the VM runs",
        ) from error


def private_key(key: Path, agent: str = "") -> paramiko.PKey:
    """The key in a file; of one with a passphrase, or of which `key` is the public half (`.pub`), as the
    user's agent has it (`agent`: its socket, where that is not the environment's).

    Raises LockedKeyError when the agent does not, LabError when it is no private key.
    """
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from paramiko.pkey import UnknownKeyType

    try:
        if key.suffix == ".pub":
            raise paramiko.PasswordRequiredException("only the agent has it")
        return paramiko.PKey.from_path(str(key))  # Vagrant's own may be RSA
    except (TypeError, paramiko.PasswordRequiredException) as error:  # cryptography's word for a passphrase
        wanted = public_half(key)
        for held in agent_keys(agent) if wanted else ():
            if held.asbytes() == wanted:
                return held
        raise LockedKeyError(
            f"the SSH key {key} has a passphrase, which lab does not ask for",
            hint=f"`ssh-add {key}` gives it to your SSH agent, which lab asks for this key",
        ) from error
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm) as error:
        raise LabError(
            f"the SSH key {key} cannot be used: {error}",
            hint="where it is the lab's own: `invoke lab.up --fresh` makes a new lab with new keys",
        ) from error


def agent_keys(agent: str = "") -> Sequence[paramiko.AgentKey]:
    """The keys of the SSH agent at the socket `agent`, or of the environment's; none without an agent."""
    import paramiko
    from paramiko.agent import AgentSSH

    if agent == "none":
        return ()
    if not agent:
        return paramiko.Agent().get_keys()
    asked = AgentSSH()
    try:
        with contextlib.suppress(OSError, paramiko.SSHException):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(agent)
            asked._connect(sock)  # type: ignore[attr-defined]
    except AttributeError:
        return ()
    return asked.get_keys()


def public_half(key: Path) -> bytes:
    """Of a key with a passphrase, as SSH sends it; empty when it is not to be had.

    OpenSSH's own format has it in clear (PROTOCOL.key); beside an older one it is in a file `.pub`.
    """
    import paramiko

    with contextlib.suppress(OSError, ValueError, IndexError, paramiko.SSHException):
        if key.suffix == ".pub":
            return base64.b64decode(key.read_text().split()[1])
        lines = key.read_text().split("-----")
        if "OPENSSH" not in lines[1]:
            return base64.b64decode(key.with_name(f"{key.name}.pub").read_text().split()[1])
        body = base64.b64decode(lines[2]).removeprefix(b"openssh-key-v1\0")
        message = paramiko.Message(body)
        for _ in ("cipher", "kdf", "its options"):
            message.get_string()
        message.get_int()  # how many keys follow: there is one
        return bytes(message.get_string())
    return b""


def pinned_keys(known_hosts: Path) -> paramiko.HostKeys:
    """A known_hosts file, host name to keys, all of them this one VM's. Raises LabError when it has none."""
    import paramiko

    try:
        keys = paramiko.HostKeys(str(known_hosts))
    except OSError as error:
        raise LabError(f"the VM's pinned host key {known_hosts} cannot be read: {error.strerror}") from error
    if not keys.keys():
        raise LabError(f"{known_hosts} pins no host key")
    return keys


def transport_errors() -> tuple[type[BaseException], ...]:
    """What a broken or refusing connection raises."""
    import paramiko

    return (paramiko.SSHException, EOFError, OSError)


def _announcement(connection: GuestConnection) -> str:
    """The server's text before login, such as `System is booting up`; "" when there is none."""
    transport = connection.client.get_transport()
    text = transport.get_banner() if transport is not None else None
    return text.decode(errors="replace").strip() if text else ""


def _explained(error: BaseException, host: str, port: int, user: str, announcement: str) -> BaseException:
    import paramiko

    where = f"{host}:{port}"
    more = f" ({announcement})" if announcement else ""
    if isinstance(error, paramiko.BadHostKeyException) or "not found in known_hosts" in str(error):
        return HostKeyError(
            f"{where} answers with a host key that is not this lab's VM's",
            hint="another program or VM took this port: `invoke lab.status` shows the lab's forwards",
            tail=str(error),
        )
    if isinstance(error, paramiko.AuthenticationException):
        return AuthRefusedError(f"{where} refuses the lab's key for user {user}{more}", tail=str(error))
    if isinstance(error, transport_errors()):
        return UnreachableError(f"{where} broke off the login: {error or type(error).__name__}{more}")
    return error

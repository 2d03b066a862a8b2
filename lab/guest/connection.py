"""Fabric's connection with lab's bounds. Imported late: paramiko and Fabric take a while to load."""

from __future__ import annotations

import socket
from typing import Any, cast

import paramiko
from fabric.config import Config
from fabric.connection import Connection
from paramiko.packet import Packetizer

from lab.core.deadline import Deadline
from lab.guest.login import GREETING_BYTES, LOGIN_SECONDS, UnreachableError, transport_errors
from lab.guest.runner import WINDOW_BYTES, BoundedRunner

_PACKET_BYTES = 256 << 10
"""OpenSSH's own limit; RFC 4253 (6.1) asks for 35000 at least."""


class BoundedPacketizer(Packetizer):
    """paramiko's, which by itself believes any length that the other side names."""

    _greeted = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > _PACKET_BYTES:
            raise paramiko.SSHException(f"the server sends a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))

    def _read_timeout(self, timeout: float) -> bytes:
        if self._greeted > GREETING_BYTES:
            raise paramiko.SSHException("the server's greeting has no end")
        chunk = bytes(super()._read_timeout(timeout))  # type: ignore[misc]
        self._greeted += len(chunk)
        return chunk


def bounded_transport(sock: Any, **more: Any) -> paramiko.Transport:
    """GCM first: it needs no separate hash, which is what costs an emulated CPU most."""
    made = paramiko.Transport(
        sock, default_window_size=WINDOW_BYTES, packetizer_class=BoundedPacketizer, **more
    )
    options = made.get_security_options()
    first = "aes128-gcm@openssh.com"
    options.ciphers = (first, *(name for name in options.ciphers if name != first))
    return made


class GuestConnection(Connection):
    """A Fabric connection over a connected socket, which trusts `host_keys` and nothing else.

    No file of the user's is read for it, and no key but `pkey` is offered. `seconds` is what banner, key
    exchange and authentication may each take.
    """

    client: paramiko.SSHClient
    transport: Any  # None before the login

    def __init__(
        self, sock: socket.socket, host: str, port: int, user: str,
        pkey: paramiko.PKey, host_keys: paramiko.HostKeys, seconds: float,
    ) -> None:  # fmt: skip
        # An explicit (empty) ssh_config and `lazy` keep every file of the user's out of it.
        config = Config(  # type: ignore[no-untyped-call]
            overrides={"runners": {"remote": BoundedRunner}}, ssh_config=paramiko.SSHConfig(), lazy=True
        )
        limits = ("timeout", "banner_timeout", "auth_timeout", "channel_timeout")
        options = dict.fromkeys(limits, seconds) | {
            "sock": sock,
            "pkey": pkey,
            "allow_agent": False,
            "look_for_keys": False,
            "transport_factory": bounded_transport,
        }
        super().__init__(host, user=user, port=port, config=config, connect_kwargs=options)  # type: ignore[no-untyped-call]
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())  # Fabric's own would add any key
        pinned = self.client.get_host_keys()
        for name in host_keys:
            for kind, public in host_keys[name].items():
                pinned.add(host if port == 22 else f"[{host}]:{port}", kind, public)

    def open(self) -> Any:
        """Log in. One that was cut off stays so: Fabric would log in anew, with no deadline."""
        if self.transport is not None and not self.is_connected:
            raise UnreachableError("the connection to the VM was cut off")
        return super().open()  # type: ignore[no-untyped-call]

    def channel(self, deadline: Deadline) -> paramiko.Channel:
        """A new channel. Raises UnreachableError."""
        try:
            seconds = max(1.0, min(LOGIN_SECONDS, deadline.left))
            return cast("paramiko.Channel", self.transport.open_session(timeout=seconds))
        except transport_errors() as error:
            raise UnreachableError(
                f"the VM's SSH server opens no channel: {error}",
                hint="the VM may hang: `invoke lab.logs` shows its console",
            ) from error

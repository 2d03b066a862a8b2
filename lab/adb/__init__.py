"""ADB from the host: an adb server of the lab's own, on its own port, with a key of its own.

The user's server (port 5037) is never asked, started or stopped, and nothing is discovered: the
server knows only the addresses it is told to connect to.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from adbutils import AdbConnection
from adbutils.errors import AdbError

from lab.adb.client import ASK_SECONDS, Client, Connection, adb_program, as_not_yet
from lab.adb.client import state as state_of
from lab.adb.server import Server
from lab.core.bounds import CHUNK_BYTES
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.journal import Journal
from lab.engines.protocol import LOOPBACK

__all__ = ["AdbServer", "adb_program"]


class AdbServer(Server):
    """A lab's adb server, and what devices say through it; it is started when it is needed.

    Methods raise LabError when adb refuses, DeadlineError when it does not answer, TooMuchError when a
    device goes on talking, InterruptedByUser when cancelled.
    """

    def __init__(self, folder: Path, journal: Journal, client: Callable[[], Client] | None = None) -> None:
        """`client` speaks to another server than the one of `folder`: a test's."""
        super().__init__(folder, journal)
        self._client = client or (lambda: Client(LOOPBACK, self.ensure()))

    def connect(self, address: str, deadline: Deadline) -> None:
        """Have the device at `address` (host:port) online; one gone stale is connected anew."""
        client = self._client()

        def online() -> bool:
            with as_not_yet(address):
                state = state_of(client, address)
                if state == "device":
                    return True
                if state:
                    client.disconnect(address)
                answer = client.connect(address, timeout=min(ASK_SECONDS, max(0.1, deadline.left)))
                if state_of(client, address) == "device":
                    return True
                raise NotYet(answer)

        poll(online, deadline, f"an ADB device at {address}", hint="`invoke lab.logs` shows its console")

    def shell(self, address: str, *argv: str, deadline: Deadline, seconds: float = ASK_SECONDS) -> str:
        """What a command on the device prints, without trailing white space.

        A device that stops answering, or answers nothing for `seconds`, is connected anew until the deadline.
        """
        printed = self._asked("shell", address, argv, deadline, seconds)
        return printed.decode(errors="replace").rstrip()

    def output(self, address: str, *argv: str, deadline: Deadline, seconds: float = ASK_SECONDS) -> bytes:
        """The bytes a command on the device prints, as they are; otherwise as `shell`."""
        return self._asked("exec", address, argv, deadline, seconds)

    def state(self, address: str) -> tuple[str, str]:
        """One try, and no waiting: the device's state, and adb's words when it is not `device`.

        `offline`, `unauthorized`, …; empty when nothing answers there.
        """
        client = self._client()
        try:
            state = state_of(client, address)
            if state == "device":
                return state, ""
            if state:
                client.disconnect(address)
            answer = client.connect(address, timeout=ASK_SECONDS)
            return state_of(client, address), answer.strip()
        except (AdbError, OSError, EOFError) as error:
            return "", str(error) or type(error).__name__

    def command(self, address: str, *argv: str, deadline: Deadline) -> list[str]:
        """The argument list of adb itself on a device that is online: for a person's terminal."""
        self.connect(address, deadline)
        return [adb_program(), "-P", str(self.ensure()), "-s", address, *argv]

    def disconnect(self, address: str) -> None:
        """Forget a device. No-op when it is not known."""
        if port := self.port():
            with contextlib.suppress(AdbError, OSError):
                Client(LOOPBACK, port).disconnect(address)

    def _asked(
        self, service: str, address: str, argv: Sequence[str], deadline: Deadline, seconds: float
    ) -> bytes:
        """What a command on the device prints, asked through adb's `shell` or `exec`."""
        client, what = self._client(), shlex.join(argv)

        def answer() -> bytes:
            self.connect(address, deadline)
            with (
                as_not_yet(address, lambda: client.disconnect(address)),
                # Not adbutils' `shell`: it waits ten minutes for a device that takes no question.
                client.device(address).open_transport(
                    timeout=max(0.1, min(seconds, deadline.left))
                ) as device,
            ):
                device.send_command(f"{service}:{what}")
                device.check_okay()
                return _all(device, deadline)

        return poll(answer, deadline, f"an answer of the ADB device at {address} to `{what}`")


def _all(device: AdbConnection, deadline: Deadline) -> bytes:
    """What a device says until it has said all."""
    assert isinstance(device, Connection)  # noqa: S101 - lab's own Client made it
    device.limits.deadline = deadline
    answer = bytearray()
    while chunk := device.conn.recv(CHUNK_BYTES):
        answer += chunk
    return bytes(answer)

"""Waiting for the SSH server of a VM that is still booting."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.core.deadline import POLL_SECONDS, Deadline, NotYet, poll
from lab.core.errors import DeadlineError, LabError
from lab.guest.login import GREETING_BYTES, LOGIN_SECONDS, AuthRefusedError, Banner, UnreachableError

if TYPE_CHECKING:
    from lab.guest.ssh import Guest

_CANDIDATES = 5
_PAUSES = 10


def wait_for_ssh(
    make: Callable[[], Guest],
    deadline: Deadline,
    alive: Callable[[], str | None],
) -> Guest:
    """Log in as soon as the VM lets us, and return the open connection.

    `alive` answers why the VM is dead, or None. Raises LabError at once when it is dead or
    another host key answers, DeadlineError naming the last obstacle.
    """
    guest = make()
    if guest.terms.somebodys:  # it is up, and is reached another way than by a port of the loopback
        guest.open(deadline)
        return guest
    alive = sparing(alive)
    knocking = _Knocking(guest.host, guest.port)
    refusals, obstacle = 0, ""

    def attempt() -> Guest | None:
        nonlocal refusals, obstacle
        if reason := alive():
            raise LabError(f"the VM ended before it let lab in: {reason}", hint="its console log says more")
        banner = knocking.listen()
        if banner is None:
            raise NotYet(obstacle or knocking.heard)
        try:
            guest.open(deadline, banner)
        except (AuthRefusedError, UnreachableError, DeadlineError) as error:
            obstacle = error.what
            if isinstance(error, AuthRefusedError):
                # A server counts refusals and may shut the door for a while: knock ever more rarely.
                refusals += 1
                knocking.rest(min(5.0, POLL_SECONDS * 2**refusals))
            raise NotYet(obstacle) from error
        return guest

    try:
        return poll(
            attempt,
            deadline,
            "login over SSH",
            hint="`invoke lab.logs` shows the VM's console; if the key is refused, its first boot "
            "(cloud-init) did not set up the user",
        )
    except BaseException:
        guest.close()
        raise
    finally:
        knocking.close()


def sparing(
    ask: Callable[[], str | None], now: Callable[[], float] = time.monotonic
) -> Callable[[], str | None]:
    """`ask`, which takes no more than a tenth of the time: in between there is nothing to tell (None).

    Over VBoxManage a question is a process, and on a slow host seconds that the VM would need.
    """
    again = now()

    def answer() -> str | None:
        nonlocal again
        began = now()
        if began < again:
            return None
        reason = ask()
        again = now() + (_PAUSES - 1) * (now() - began)
        return reason

    return answer


class _Knocking:
    """Keeps a few connections waiting for a greeting, a new one each time it is asked.

    A connection made before the guest's network was up answers late or never, so a fresh
    one is tried at each poll; a slow server needs time, so the oldest is kept.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._waiting: list[tuple[float, socket.socket]] = []
        self._not_before = 0.0
        self.heard = "the port is closed"

    def listen(self) -> Banner | None:
        """A socket with a greeting, or None after at most POLL_SECONDS / 2."""
        if time.monotonic() < self._not_before:
            return None
        self._knock()
        sockets = [waiting for _, waiting in self._waiting]
        if not sockets:
            return None
        for ready in select.select(sockets, [], [], POLL_SECONDS / 2)[0]:
            greeting = b""
            with contextlib.suppress(OSError):
                greeting = ready.recv(GREETING_BYTES, socket.MSG_PEEK)
            if not greeting:
                self.heard = "the port closes at once"
                self._forget(ready)
            elif any(line.startswith(b"SSH-") for line in greeting.split(b"\n")):
                self._waiting = [item for item in self._waiting if item[1] is not ready]
                self.close()
                return ready
            else:  # lines before its version, so far, or no SSH server
                self.heard = "the port answers, but not with SSH"
                if len(greeting) == GREETING_BYTES:
                    self._forget(ready)
        return None

    def _forget(self, waiting: socket.socket) -> None:
        self._waiting = [item for item in self._waiting if item[1] is not waiting]
        waiting.close()

    def _knock(self) -> None:
        try:
            fresh = socket.create_connection(self._address, timeout=POLL_SECONDS)
        except OSError as error:
            self.heard = f"the port is closed ({error.strerror or error})"
            return
        self.heard = "the port is open, and no SSH server has greeted yet"
        self._waiting.append((time.monotonic(), fresh))
        oldest, first = self._waiting[0]
        if time.monotonic() - oldest > LOGIN_SECONDS:
            first.close()
            del self._waiting[0]
        if len(self._waiting) > _CANDIDATES:
            self._waiting[1][1].close()
            del self._waiting[1]

    def rest(self, seconds: float) -> None:
        self._not_before = time.monotonic() + seconds

    def close(self) -> None:
        for _, waiting in self._waiting:
            waiting.close()
        self._waiting = []

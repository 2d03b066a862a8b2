"""How an adb server is asked: adbutils, without its habits, and adb's refusals as reasons to wait."""

from __future__ import annotations

import contextlib
import importlib.resources
from collections.abc import Callable, Iterator

import adbutils
from adbutils.errors import AdbError

from lab.core.bounds import Limits, Watched
from lab.core.deadline import Deadline, NotYet
from lab.core.errors import LabError

ASK_SECONDS = 10.0
"""How long one question may take before it is asked again: a device may have gone stale."""


MOST_BYTES = 32 << 20
"""Of one answer: a picture of a large screen has some of them, and nothing has more."""


class Connection(adbutils.AdbConnection):
    """Without adbutils' habits: it starts the user's server when nobody answers, and reads without an end."""

    def _safe_connect(self) -> Watched:
        self.limits = Limits(Deadline.after(ASK_SECONDS), MOST_BYTES)
        return Watched(self._create_socket(), lambda: self.limits)  # type: ignore[no-untyped-call]


class Client(adbutils.AdbClient):
    """Speaks to one adb server, with an end to every answer."""

    def make_connection(self, timeout: float | None = None) -> Connection:
        """`timeout` is for the whole answer; `limits.deadline` may be put off afterwards."""
        connection = Connection(self.host, self.port)
        seconds = timeout or ASK_SECONDS
        connection.conn.settimeout(seconds)
        connection.limits.deadline = Deadline.after(seconds)
        return connection


@contextlib.contextmanager
def as_not_yet(address: str, then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """adb's refusals are reasons to ask again, until the deadline."""
    try:
        yield
    except (AdbError, OSError, EOFError) as error:
        with contextlib.suppress(AdbError, OSError):
            then()
        raise NotYet(f"{address}: {error or type(error).__name__}") from error


def state(client: Client, address: str) -> str:
    """`device`, `offline`, `unauthorized`, …; empty when the server does not know the address."""
    return next((device.state for device in client.list() if device.serial == address), "")


def adb_program() -> str:
    """adbutils' own adb: a known version; else the one on PATH. Raises LabError when there is none."""
    shipped = importlib.resources.files("adbutils") / "binaries" / "adb"
    if shipped.is_file():
        return str(shipped)
    try:
        return str(adbutils.adb_path())
    except AdbError as error:
        raise LabError("there is no adb program", hint="install Android's platform tools") from error

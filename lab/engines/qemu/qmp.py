"""QMP, QEMU's control protocol, as plain blocking calls with deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from lab.core.deadline import Deadline, check_cancelled, pause
from lab.core.errors import DeadlineError, LabError

T = TypeVar("T")

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""QEMU's main loop answers, and saving memory keeps it busy: be patient."""

_GOODBYE_SECONDS = 2.0
_BROKEN = (QMPError, OSError, EOFError, asyncio.CancelledError)
"""What the library raises when the other side is gone."""

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what matters comes as an exception


class MonitorLostError(LabError):
    """The control connection could not be made, or broke: the process ended or is ending."""


class QmpRefusedError(LabError):
    """QEMU understood a command and refused it; its own words are in `tail`."""


class Monitor:
    """One connection. QEMU serves one at a time, so hold it briefly: use `connect`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("lab")

    def open(self, deadline: Deadline) -> None:
        """Connect and greet. Raises MonitorLostError, DeadlineError."""
        try:
            self._run(self._client.connect(str(self._path)), deadline, "the control connection")
        except _BROKEN as error:
            cause = error.exc if isinstance(error, ConnectError) else error
            raise MonitorLostError(f"{self._path} does not answer", tail=str(cause)) from error

    def close(self) -> None:
        """Disconnect, also when the command is cancelled: QEMU then serves the next one."""
        with contextlib.suppress(*_BROKEN, asyncio.TimeoutError):
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), _GOODBYE_SECONDS))
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=_GOODBYE_SECONDS))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def execute(self, command: str, deadline: Deadline | None = None, **arguments: Any) -> Any:
        """The answer's `return` value. Raises RefusedError, MonitorLostError, DeadlineError."""
        deadline = deadline or Deadline.after(ANSWER_SECONDS)
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            return self._run(self._client.execute(command, named or None), deadline, f"`{command}`")
        except ExecuteError as error:
            raise QmpRefusedError(f"QEMU refused `{command}`", tail=str(error)) from error
        except _BROKEN as error:
            raise MonitorLostError(f"the connection broke during `{command}`", tail=str(error)) from error

    def job(self, command: str, deadline: Deadline, **arguments: Any) -> None:
        """Run a background job to its end. Raises RefusedError when it fails."""
        name = f"lab-{secrets.token_hex(6)}"
        self.execute(command, deadline, job_id=name, **arguments)
        while (job := self._job(name, deadline))["status"] != "concluded":
            if deadline.passed:
                raise DeadlineError(f"`{command}` did not end in {deadline.seconds:.0f} s")
            pause(0.1)
        self.execute("job-dismiss", deadline, id=name)
        if error := job.get("error"):
            raise QmpRefusedError(f"QEMU's `{command}` failed", tail=str(error))

    def _job(self, name: str, deadline: Deadline) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = self.execute("query-jobs", deadline)
        for job in jobs:
            if job["id"] == name:
                return job
        raise LabError(f"QEMU lost the job {name}")

    def quit(self) -> None:
        """Ask the process to end; the connection ends with it."""
        with contextlib.suppress(MonitorLostError):
            self.execute("quit", Deadline.after(CONNECT_SECONDS))

    def _run(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str) -> T:
        task = self._loop.create_task(work)
        try:
            while not task.done():
                check_cancelled()
                if deadline.passed:
                    raise DeadlineError(
                        f"{what} did not answer in {deadline.seconds:.0f} s",
                        hint="QEMU may be stopped or busy saving memory; try again",
                    )
                slice_ = min(0.3, max(0.01, deadline.left))
                self._loop.run_until_complete(asyncio.wait({task}, timeout=slice_))
        finally:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.wait({task}, timeout=1))
        return task.result()


@contextlib.contextmanager
def connect(
    path: Path, deadline: Deadline | None = None, alive: Callable[[], bool] = lambda: True
) -> Iterator[Monitor]:
    """A greeted connection. Waits for the socket while the process is `alive`.

    Raises DeadlineError (it lives and does not answer), MonitorLostError (it does not live).
    """
    deadline = deadline or Deadline.after(CONNECT_SECONDS)
    while True:
        monitor = Monitor(path)
        try:
            monitor.open(deadline)
            break
        except BaseException as error:
            monitor.close()
            if not isinstance(error, MonitorLostError) or not alive():
                raise
            if deadline.passed:
                raise DeadlineError(
                    f"QEMU's control socket did not answer in {deadline.seconds:.0f} s", tail=error.tail
                ) from error
        pause(0.05)
    try:
        yield monitor
    finally:
        monitor.close()

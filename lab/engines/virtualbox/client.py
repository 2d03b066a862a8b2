"""The other end of the worker: one process for all calls, started when first needed, again when it died."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from lab.core import proc
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import DeadlineError, InterruptedByUser, LabError
from lab.engines.virtualbox.transport import GlueError, WorkerLostError, as_error

ANSWER_SECONDS = 60.0
_GOODBYE_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds the package `lab`."""


class WorkerClient:
    """lab.engines.virtualbox.transport.Transport over VirtualBox's bindings, one call at a time.

    `glue` are the folders in which vboxapi may be, best first; without any, vbox-sdk's is used if installed.
    """

    name = "vboxapi"

    def __init__(self, python: str, home: Path, glue: Sequence[Path]) -> None:
        self._argv = [python, "-m", "lab.engines.virtualbox.worker"]
        pyvbox = importlib.util.find_spec("virtualbox")
        assert pyvbox is not None and pyvbox.origin is not None  # noqa: S101 - lab depends on it
        own = [str(_ROOT), str(Path(pyvbox.origin).parent.parent)]
        self._env = {
            **os.environ,
            # The glue first: lab's own packages may hold a vbox-sdk of another version.
            "PYTHONPATH": os.pathsep.join([*(str(path) for path in glue), *own]),
            "PYTHONUNBUFFERED": "1",
            # What Oracle's glue, and PyPI's, asks where the libraries are; Debian's knows.
            "VBOX_PROGRAM_PATH": str(home),
            "VBOX_INSTALL_PATH": str(home),
            "VBOX_SDK_PATH": str(home / "sdk"),
        }
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def call(
        self,
        operation: str,
        deadline: Deadline | None = None,
        **words: Any,
    ) -> Any:
        """The operation's result.

        All operations converge, so one that is cut short by VBoxSVC's death is begun again, once.
        Raises LabError of the kind the fault is, DeadlineError, InterruptedByUser.
        """
        deadline = deadline or Deadline.after(ANSWER_SECONDS)
        with self._lock:
            try:
                return self._ask(operation, deadline, words)
            except WorkerLostError:
                return self._ask(operation, deadline, words)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _ask(self, operation: str, deadline: Deadline, words: dict[str, Any]) -> Any:
        if self._running is None:
            self._running = _Running(self._argv, self._env)
        try:
            return self._running.ask(operation, deadline, words)
        except BaseException as error:
            # Objects of a dead VBoxSVC never recover in the process that holds them, and an operation
            # that was not waited for would answer the next question. Any other failure is an answer.
            lost = isinstance(error, WorkerLostError | DeadlineError | InterruptedByUser)
            if lost or not isinstance(error, LabError):
                self._drop()
            raise

    def _drop(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None


class _Running:
    """One worker process."""

    def __init__(self, argv: Sequence[str], env: dict[str, str]) -> None:
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            # A session of its own: Ctrl-C must not cut an operation short that has begun.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._noise,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise GlueError(
                f"`{argv[0]}` cannot be started for VirtualBox's bindings",
                tail=str(error),
                hint="set virtualbox.python to a Python that can load them",
            ) from error
        self._finalizer = weakref.finalize(self, _end, self._process)
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True).start()
        self._number = 0

    def ask(self, operation: str, deadline: Deadline, words: dict[str, Any]) -> Any:
        self._number += 1
        request = {"id": self._number, "op": operation, "args": words}
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - Popen was given a pipe
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except OSError as error:
            raise self._lost(operation) from error
        while True:
            answer = self._next(operation, deadline)
            if answer.get("id") != self._number:
                continue
            if "fault" in answer:
                raise as_error(**answer["fault"])
            return answer["result"]

    def _next(self, operation: str, deadline: Deadline) -> dict[str, Any]:
        while True:
            check_cancelled()
            try:
                answer = self._answers.get(timeout=0.1)
            except queue.Empty:
                if deadline.passed:
                    raise DeadlineError(
                        f"VirtualBox did not finish `{operation}` in {deadline.seconds:.0f} s",
                        tail=self._said(),
                        hint="VBoxSVC may hang; VirtualBox's own window shows whether it answers",
                    ) from None
                continue
            if answer is None:
                raise self._lost(operation)
            return answer

    def _lost(self, operation: str) -> WorkerLostError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_SECONDS)
        return WorkerLostError(
            f"the process that holds VirtualBox's bindings ended during `{operation}`"
            f" (status {self._process.returncode})",
            tail=self._said(),
            hint="run the command again; if it happens twice, the bindings do not fit this Python",
        )

    def _said(self) -> str:
        self._noise.seek(0)
        return proc.tail(self._noise.read().decode(errors="replace"))

    def end(self) -> None:
        self._finalizer()
        self._noise.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, which ends it after what it is at; a process that hangs is killed."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _read(stream: IO[bytes] | None, answers: queue.Queue[dict[str, Any] | None]) -> None:
    assert stream is not None  # noqa: S101 - Popen was given a pipe
    with contextlib.suppress(ValueError, OSError):  # closed while it was being read
        for line in stream:
            with contextlib.suppress(ValueError):
                answers.put(json.loads(line))
    answers.put(None)


@lru_cache
def client(python: str, home: Path, glue: tuple[Path, ...]) -> WorkerClient:
    """The one client of this process for these bindings."""
    return WorkerClient(python or sys.executable, home, glue)

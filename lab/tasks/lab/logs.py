"""lab.logs: a log of L1, of the engine or of the main emulator."""

from __future__ import annotations

from pathlib import Path

from lab.core import screen
from lab.core.bounds import CHUNK_BYTES
from lab.core.deadline import POLL_SECONDS, pause
from lab.core.errors import UsageError
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_SOURCES = ("console", "engine", "container", "l2")


def logs(session: Session, name: str, follow: bool, source: str) -> Reply:
    """Print a log: of L1's serial console, the engine, the container, or L2's console."""
    if source not in _SOURCES:
        raise UsageError(f"there is no log {source!r}", hint=f"one of {', '.join(_SOURCES)}")
    bench = Workbench.open(session, name)
    if source in ("container", "l2"):
        bench.require_running("that log")
        return _emulator_log(bench, source, follow)
    files = [bench.machine.console()] if source == "console" else bench.machine.logs()
    present = [path for path in files if path.is_file()]
    if not present:
        raise UsageError(f"lab {name} has no {source} log yet", hint="its VM was not started")
    for path in present:
        _print_file(path, follow and path is present[-1])
    return Reply()


def _print_file(path: Path, follow: bool) -> None:
    with path.open("rb") as stream:
        while True:
            if chunk := stream.read(CHUNK_BYTES):
                screen.write(chunk)
            elif not follow:
                return
            else:
                pause(POLL_SECONDS)


def _emulator_log(bench: Workbench, source: str, follow: bool) -> Reply:
    emulator = bench.main_emulator()
    if emulator is None:
        raise UsageError(f"lab {bench.lab.name} has no emulator", hint="`invoke lab.up --emulator canary`")
    shown = ""
    while True:
        texts = emulator.logs(bench.guest)
        text = next((content for key, content in texts.items() if source in key), "")
        screen.write(text.removeprefix(shown) if text.startswith(shown) else text)
        shown = text
        if not follow:
            bench.close()
            return Reply()
        pause(1.0)

"""Into the VM: a shell, a command, files, logs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.core import caller, proc, screen
from lab.core.bounds import CHUNK_BYTES
from lab.core.deadline import POLL_SECONDS, Deadline, pause
from lab.core.errors import UsageError
from lab.documents.labs import LabExec
from lab.guest.ssh import Result, ssh_command
from lab.tasks.emulator.instances import require_running
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_REMOTE = "lab:"
_DAY = 86400.0
_READER_GONE = 128 + signal.SIGPIPE
"""A shell's word for a command whose reader went away."""
_SOURCES = ("console", "engine", "container", "l2")


def ssh(session: Session, name: str) -> Reply:
    """A person's shell: ssh itself, on this terminal. Its exit status is ours."""
    bench = Workbench.open(session, name)
    require_running(bench, "a shell")
    return Reply(code=proc.passthrough(ssh_command(bench.guest)))


def execute(session: Session, name: str, argv: list[str], capture: bool = False) -> Reply:
    """Run a command in L1 on our own standard streams. Its exit status is ours.

    `capture` keeps its output for the answer instead, and gives it no input.
    """
    if not argv:
        raise UsageError("no command was given", hint="invoke lab.exec -- uname -a")
    bench = Workbench.open(session, name)
    try:
        require_running(bench, "a command")
        deadline = Deadline.after(_DAY)
        if not capture:
            return Reply(code=_streamed(bench, argv, deadline))
        result = bench.guest.run(argv, check=False, deadline=deadline)
    finally:
        bench.close()
    sys.stderr.write(result.err)
    return captured(argv, result)


def captured(argv: Sequence[str], result: Result | proc.Completed) -> Reply:
    """The answer of a command whose output was kept for it."""
    done = LabExec(
        argv=argv, status=result.status, out=result.out, err=result.err, seconds=round(result.seconds, 3)
    )
    return Reply(done.as_json(), code=result.status)


def _streamed(bench: Workbench, argv: list[str], deadline: Deadline) -> int:
    try:
        return bench.guest.stream(argv, deadline)
    except screen.ReaderGoneError:
        return _READER_GONE  # it was ended for that, and nobody knows what it would have come to


def copy(session: Session, name: str, source: str, target: str) -> Reply:
    """Copy one file; the side in the VM begins with `lab:`."""
    inward = target.startswith(_REMOTE)
    if inward == source.startswith(_REMOTE):
        raise UsageError(
            "one side, and only one, must be in the VM",
            hint="invoke lab.copy notes.txt lab:/tmp/notes.txt, or the other way round",
        )
    bench = Workbench.open(session, name)
    try:
        require_running(bench, "copying")
        with session.steps.step("copy", f"{source} → {target}") as step:
            if inward:
                _copy_in(bench, caller.path(source), target.removeprefix(_REMOTE), step.progress)
            else:
                remote = source.removeprefix(_REMOTE)
                bench.guest.get(remote, _local_file(target, remote), step.progress)
    finally:
        bench.close()
    return Reply()


def _local_file(target: str, remote: str) -> Path:
    """Where a copy of `remote` goes that was asked for as `target`: a file, or the folder for it."""
    local = caller.path(target)
    file = local / Path(remote).name if local.is_dir() else local
    if file.is_dir() or not file.parent.is_dir() or (target.endswith("/") and not local.is_dir()):
        why = "a folder is there" if file.is_dir() else "there is no such folder"
        raise UsageError(f"{file} cannot be written: {why}")
    return file


def _copy_in(bench: Workbench, local: Path, remote: str, progress: Callable[[int, int], None]) -> None:
    if not local.is_file():
        raise UsageError(f"{local} is not a file", hint="folders: make an archive of it first")
    into_folder = (
        remote == ""
        or remote.endswith("/")
        or bench.guest.run(["test", "-d", remote], check=False).status == 0
    )
    bench.guest.put(local, str(Path(remote or ".") / local.name) if into_folder else remote, progress)


def logs(session: Session, name: str, follow: bool, source: str) -> Reply:
    """Print a log: of L1's serial console, the engine, the container, or L2's console."""
    if source not in _SOURCES:
        raise UsageError(f"there is no log {source!r}", hint=f"one of {', '.join(_SOURCES)}")
    bench = Workbench.open(session, name)
    if source in ("container", "l2"):
        require_running(bench, "that log")
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

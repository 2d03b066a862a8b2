"""Which process is this machine's: by PID, start time and the UUID in its arguments, never by name."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, DeadlineError, LabError
from lab.core.files import open_private
from lab.engines.protocol import Forward
from lab.engines.qemu.command import Hardware

_START_TOLERANCE = 2.0
"""Seconds: the start time is computed from the boot time, which follows clock adjustments."""

_LAST_THREADS_SECONDS = 5.0

_QEMU = re.compile(r"qemu-system.*|qemu-kvm")
"""What distributions call the program: Red Hat's is /usr/libexec/qemu-kvm."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this very process started: they must be reaped, or they stay as zombies."""


@dataclass(frozen=True)
class QemuLaunch:
    """What a process was started with."""

    hardware: Hardware
    forwards: list[Forward]
    socket: Path
    network: Path | None = None
    """slirp4netns' control socket, where QEMU runs in a network namespace of its own."""
    binary: str = ""
    """The program as its own arguments name it; empty in a record of an earlier version."""

    def to_json(self) -> dict[str, Any]:
        return {
            "hardware": asdict(self.hardware),
            "forwards": [asdict(item) for item in self.forwards],
            "socket": str(self.socket),
            "network": str(self.network) if self.network else None,
            "binary": self.binary,
        }

    @classmethod
    def from_json(cls, value: Any) -> QemuLaunch | None:
        """None when `value` is not a launch (an older or a torn file)."""
        try:
            forwards = [Forward(**item) for item in value["forwards"]]
            network = Path(value["network"]) if value.get("network") else None
            launched = (Hardware(**value["hardware"]), forwards, Path(value["socket"]))
            return cls(*launched, network, str(value.get("binary") or ""))
        except (TypeError, KeyError, ValueError, AttributeError):
            return None


def spawn(
    argv: Sequence[str], log: Path, folder: Path, *, piped: bool = False, keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a process of its own session: signals to this terminal do not reach it.

    Its output goes to `log`; `piped` leaves its standard input and output to the caller, who hands it
    the descriptors `keep`. Raises BlockedError when the program is not installed.
    """
    for pid, ended in list(_children.items()):
        if ended.poll() is not None:
            del _children[pid]
    with open_private(log, "ab") as output:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
                pass_fds=keep,
            )
        except FileNotFoundError as error:
            raise BlockedError(
                f"`{argv[0]}` is not installed",
                hint="`invoke lab.doctor` shows what is missing and how to install it",
            ) from error
    _children[child.pid] = child
    return child


def alive(process: psutil.Process) -> bool:
    """Whether any of it still runs. One that has ended and was this process's own child is reaped.

    The main thread of a killed QEMU can be gone while others still hold its disk locked.
    """
    child = _children.get(process.pid)
    if child is not None:
        if child.poll() is None:
            return True
        del _children[process.pid]
        return False
    try:
        return process.is_running() and not (_is_zombie(process) and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return False


def _is_zombie(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_ZOMBIE)


def _is_ending(process: psutil.Process) -> bool:
    """A process that ends loses its arguments first, then its main thread."""
    try:
        return _is_zombie(process) or not process.cmdline()
    except psutil.ZombieProcess:
        return True


def is_machine(process: psutil.Process, uuid: str, binaries: Collection[str] = ()) -> bool:
    """Whether it is a running QEMU whose arguments carry `-uuid UUID`.

    Its program is one of `binaries`, as the arguments name it, or has one of QEMU's own names.
    """
    try:
        argv = process.cmdline()
    except psutil.Error:
        return False
    if not argv or not (argv[0] in binaries or _QEMU.fullmatch(Path(argv[0]).name)):
        return False
    return ("-uuid", uuid) in itertools.pairwise(argv) and alive(process)


def by_record(record: Any, uuid: str, binaries: Collection[str] = ()) -> psutil.Process | None:
    """The process a record names, if it is still that one and not another with its PID."""
    try:
        pid, created = int(record["pid"]), float(record["created"])
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > _START_TOLERANCE:
            return None
        if _is_ending(process):
            wait_gone(process, Deadline.after(_LAST_THREADS_SECONDS))
            return None
    except (TypeError, KeyError, ValueError, psutil.Error):
        return None
    return process if is_machine(process, uuid, binaries) else None


def by_uuid(uuid: str, binaries: Collection[str] = ()) -> psutil.Process | None:
    """Look through all processes: a crash may have come before the record was written."""
    for process in psutil.process_iter():
        if is_machine(process, uuid, binaries):
            return process
    return None


def keepers(pid_file: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(UUID, process) of those that were told to keep their PID in this file, whatever they are called.

    The file is one machine's own: nobody else tells a process so.
    """
    wanted = os.path.realpath(pid_file)
    for process in psutil.process_iter():
        try:
            words = dict(itertools.pairwise(process.cmdline()))
        except psutil.Error:
            continue
        if "-uuid" in words and os.path.realpath(words.get("-pidfile", "")) == wanted:
            yield words["-uuid"], process


def find(record: Any, uuid: str, binaries: Collection[str] = ()) -> psutil.Process | None:
    """This machine's process, or None when it does not run. `binaries` are what it may be called."""
    return by_record(record, uuid, binaries) or by_uuid(uuid, binaries)


def wait_gone(process: psutil.Process, deadline: Deadline) -> bool:
    """Whether it ended before the deadline. Raises InterruptedByUser."""
    try:
        poll(lambda: None if alive(process) else True, deadline, "the end of the process", every=0.1)
    except DeadlineError:
        return not alive(process)
    return True


def kill(process: psutil.Process, uuid: str, patience: float = 5.0, binaries: Collection[str] = ()) -> None:
    """End it: by request, then by force. A process that is not this machine's is left alone.

    Raises LabError when it survives.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_machine(process, uuid, binaries):
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)  # psutil checks the start time again
        if wait_gone(process, Deadline.after(patience)):
            return
    raise LabError(
        f"process {process.pid} did not end when killed",
        hint=f"`ps -o stat,wchan {process.pid}` tells what it waits for; often it is a dead disk",
        evidence=[f"pid {process.pid}, asked by {os.getpid()}"],
    )

"""Starting a machine's process, finding it again, and explaining why it did not start."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from lab.core import bounds, files, proc
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.core.journal import Journal
from lab.engines.protocol import LOOPBACK, Forward, MachineSpec, PortTakenError, refuse_full
from lab.engines.qemu import process, qmp
from lab.engines.qemu.command import Hardware, build
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.layout import QemuLayout, make_private
from lab.engines.qemu.network import INSIDE, ForwardRefusedError, Namespace
from lab.host.ports import is_free

_LOAD_SECONDS = 600.0
_GIVE_UP_SECONDS = 5.0
IO_ERROR = "io-error"
"""QEMU's word for a VM that it paused because a write of its disk failed: without other orders (`werror`)
it does so for want of space only, and hands any other failure to the guest."""
_REFUSED_FORWARD = re.compile(r"host forwarding rule '?tcp:[0-9.]*:(\d+)-")
_NO_MEMORY = re.compile(r"cannot set up guest memory|Cannot allocate memory")


class Launcher:
    """One machine's process: at most one, whoever started it."""

    def __init__(self, host: HostQemu, spec: MachineSpec, layout: QemuLayout, journal: Journal) -> None:
        self._host = host
        self._spec = spec
        self._layout = layout
        self._journal = journal

    def find(self) -> psutil.Process | None:
        """The running process, or None.

        Where record and journal are lost, nobody knows what it is called: its own arguments say whose it is.
        """
        uuid = self._spec.uuid
        if running := process.find(_record(self._layout.process), uuid, self._binaries):
            return running
        keepers = process.keepers(self._layout.pid)
        return next((keeper for theirs, keeper in keepers if theirs == uuid and process.alive(keeper)), None)

    def end(self, running: psutil.Process) -> None:
        """End the process by force. Raises LabError when it survives."""
        process.kill(running, self._spec.uuid, binaries=self._binaries | {_program(running)})

    @property
    def _binaries(self) -> set[str]:
        """What the process may be called: QEMU has other names, and may be started through a script."""
        launch = self.launched()
        return {self._host.binary} | ({launch.binary} if launch and launch.binary else set())

    def launched(self) -> process.QemuLaunch | None:
        """What the process was started with: from its record, or, after a crash, the journal."""
        record = _record(self._layout.process)
        if isinstance(record, dict) and (launch := process.QemuLaunch.from_json(record.get("launch"))):
            return launch
        for entry in self._journal.entries("process"):
            if entry.key == self._spec.uuid:
                return process.QemuLaunch.from_json(entry.facts)
        return None

    @contextlib.contextmanager
    def monitor(self, running: psutil.Process, deadline: Deadline | None = None) -> Iterator[qmp.Monitor]:
        """The control connection of the running process."""
        launch = self.launched()
        path = launch.socket if launch else self._layout.socket
        with qmp.connect(path, deadline, alive=lambda: process.alive(running)) as monitor:
            yield monitor

    def launch(self, hardware: Hardware, forwards: Sequence[Forward], load: str = "") -> None:
        """Start, and wait until it runs. Raises PortTakenError, BlockedError, LabError; then
        nothing runs, except after InterruptedByUser, when the next command finds it."""
        if not self._spec.seed.is_file():
            raise BlockedError(f"the seed {self._spec.seed} is missing", hint="run `invoke lab.up` again")
        host, layout = self._host, self._layout
        apart = None if host.why_open() else Namespace(layout.network)
        launch = process.QemuLaunch(
            hardware, list(forwards), layout.socket, layout.network if apart else None, host.binary
        )
        argv = build(
            host.binary,
            self._spec,
            hardware,
            layout,
            forwards,
            load=load,
            sandbox=host.capabilities(host.binary).sandbox,
            address=INSIDE if apart else LOOPBACK,
        )
        self._prepare(launch.socket, layout.network)
        self._journal.intend("process", self._spec.uuid, **launch.to_json())
        logged = self._layout.log.stat().st_size if self._layout.log.exists() else 0
        child = None
        try:
            child = self._spawn(argv, apart, forwards)
            running = psutil.Process(child.pid)
            self._write_record(running, launch)
            self._await(child, launch.socket, _LOAD_SECONDS if load else host.start_seconds)
            if binary := _program(running):  # a script may have put QEMU in its own place
                self._write_record(running, dataclasses.replace(launch, binary=binary))
        except InterruptedByUser:
            if child is None:
                self.forget()
            raise
        except Exception as error:
            self._give_up(child)
            raise self._explain(logged, forwards, error) from error

    def _spawn(
        self, argv: Sequence[str], apart: Namespace | None, forwards: Sequence[Forward]
    ) -> subprocess.Popen[bytes]:
        layout = self._layout
        if apart is None:
            return process.spawn(argv, layout.log, layout.folder)
        ports = [item.host_port for item in forwards]
        return apart.spawn(argv, layout.log, layout.folder, layout.resolver, ports)

    def amend(self, running: psutil.Process, forwards: Sequence[Forward]) -> None:
        """Record that the running process has these forwards from now on."""
        launch = self.launched()
        if launch is None:
            raise LabError(
                f"the record of the process of {self._spec.name} is lost",
                hint="stop the machine and start it again: it then has every forward it should have",
            )
        self._write_record(running, dataclasses.replace(launch, forwards=list(forwards)))

    def forget(self) -> None:
        """Drop what is only true of a running process. Call it when none runs."""
        Namespace(self._layout.network).wait_gone()
        self._layout.process.unlink(missing_ok=True)
        if any(entry.key == self._spec.uuid for entry in self._journal.entries("process")):
            self._journal.gone("process", self._spec.uuid)

    def _prepare(self, *sockets: Path) -> None:
        self._layout.folder.mkdir(parents=True, exist_ok=True)
        known = {entry.key for entry in self._journal.entries("file")}
        for path in dict.fromkeys((*self._layout.files(), *sockets)):
            if str(path) not in known:
                self._journal.intend("file", str(path))
        Namespace(self._layout.network).wait_gone()  # QEMU may just have ended by itself
        for control in sockets:
            if control.parent != self._layout.folder:
                make_private(control.parent)
            control.unlink(missing_ok=True)

    def _write_record(self, running: psutil.Process, launch: process.QemuLaunch) -> None:
        record = {"pid": running.pid, "created": running.create_time(), "uuid": self._spec.uuid}
        files.write_json(self._layout.process, record | {"launch": launch.to_json()})
        self._journal.done("process", self._spec.uuid, pid=running.pid, **launch.to_json())

    def _await(self, child: subprocess.Popen[bytes], control: Path, seconds: float) -> None:
        deadline = Deadline.after(seconds)
        with qmp.connect(control, deadline, alive=lambda: child.poll() is None) as monitor:
            let_run(monitor, deadline, self._spec)

    def _give_up(self, child: subprocess.Popen[bytes] | None) -> None:
        """End the child, which is QEMU whatever it is called: it was started here."""
        if child is not None:
            child.terminate()
            try:
                child.wait(_GIVE_UP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.forget()

    def _explain(self, logged: int, forwards: Sequence[Forward], error: Exception) -> LabError:
        log = self._layout.log
        lines = bounds.read_text(log, logged)
        if isinstance(error, ForwardRefusedError) and error.port:
            return port_error(error.port, forwards, f"{error.what}: {error.tail}", log)
        if match := _REFUSED_FORWARD.search(lines):
            return port_error(int(match[1]), forwards, proc.tail(lines), log)
        if isinstance(error, BlockedError):
            return error
        if _NO_MEMORY.search(lines):
            return BlockedError(
                f"the host cannot give the machine {self._spec.memory_mib} MiB of memory",
                hint="end other programs, or configure less memory",
                evidence=[log],
                tail=proc.tail(lines),
            )
        return LabError(
            "QEMU did not start",
            hint="`tail` below has QEMU's own words; `invoke lab.doctor` checks this host",
            evidence=[log],
            tail=proc.tail(lines) or str(error),
        )


def let_run(monitor: qmp.Monitor, deadline: Deadline, spec: MachineSpec) -> None:
    """Make the virtual CPUs run, and see that they do. Raises DiskFullError when they would not for long."""

    def running() -> bool | None:
        status = monitor.execute("query-status", deadline)["status"]
        if status == "running":
            return True
        if status == IO_ERROR:
            refuse_full(spec.folder, spec.name)
        monitor.execute("system_wakeup" if status == "suspended" else "cont", deadline)
        raise NotYet(f"its state is `{status}`")

    poll(running, deadline, "the machine's running", every=0.1)


def port_error(first: int, forwards: Sequence[Forward], words: str, log: Path) -> PortTakenError:
    """QEMU names the first port it could not bind; the others are tried here."""
    others = [item.host_port for item in forwards if item.host_port != first]
    ports = [first, *(port for port in others if not is_free(port))]
    names = ", ".join(str(port) for port in ports)
    return PortTakenError(
        f"port{'s' if len(ports) > 1 else ''} {names} of {LOOPBACK} cannot be bound",
        ports,
        hint="another program has it; configure another port, or let lab choose one",
        evidence=[log],
        tail=words,
    )


def _program(running: psutil.Process) -> str:
    """What its arguments call it; empty when it just ended."""
    try:
        return next(iter(running.cmdline()), "")
    except psutil.Error:
        return ""


def _record(path: Path) -> object:
    """The record's JSON, or None when it is absent or torn."""
    try:
        return files.read_json(path)
    except (ValueError, OSError):
        return None


def remove_socket_folder(control: Path, folder: Path) -> None:
    """Remove the socket, and the short folder it needed if nothing else is in it.

    The path may be from a record that was copied along with another lab's: nothing more is removed.
    """
    if control.parent != folder:
        control.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            control.parent.rmdir()

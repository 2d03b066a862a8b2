"""One lab VM on QEMU. Nothing is kept in memory: the next command finds all of it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import psutil

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InterruptedByUser, LabError, UsageError
from lab.core.journal import Journal
from lab.engines import refusals
from lab.engines.images import QemuImg
from lab.engines.protocol import Forward, MachineSpec, Snapshot, State
from lab.engines.qemu import launching, process, readback
from lab.engines.qemu.command import Hardware, hardware
from lab.engines.qemu.disk import SUSPENDED, SavedState, create_overlay, snapshots_of, tag_of
from lab.engines.qemu.forwarding import Forwarding
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.layout import QemuLayout
from lab.engines.qemu.qmp import Monitor, MonitorLostError
from lab.engines.qemu.saved import SavedStates

_ASK_AGAIN_SECONDS = 5.0
_QUIT_SECONDS = 10.0
_FLUSH_SECONDS = 60.0


class QemuMachine:
    """lab.engines.protocol.Machine on QEMU."""

    def __init__(self, spec: MachineSpec, journal: Journal, host: HostQemu) -> None:
        self.spec = spec
        self._journal = journal
        self._host = host
        self._layout = QemuLayout(spec.folder, spec.uuid)
        self._images = QemuImg(host.image_tool)
        self._saved = SavedStates(self._layout, self._images)

    # Power

    def create(self) -> None:
        self.spec.folder.mkdir(parents=True, exist_ok=True)
        if self._launcher.find():
            return  # its disk is in use, so it exists
        create_overlay(self.spec, self._layout, self._images, self._journal)

    def start(self, forwards: Sequence[Forward]) -> None:
        """Power on; a suspended machine is resumed instead, so that its memory is not lost."""
        if running := self._launcher.find():
            self._let_run(running)
            return
        state = self._at_rest()
        if state is State.SUSPENDED:
            self._load(SUSPENDED, forwards)
            return
        if state is State.ABSENT:
            raise refusals.not_created(self.spec.name)
        self._launcher.launch(self._fresh_hardware(), forwards)

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        running = self._launcher.find()
        if not running:
            self._launcher.forget()
            return "already"
        graceful = self._ask_to_stop(running, deadline)
        if not graceful:
            self._end(running)
        self._launcher.forget()
        self._saved.delete(SUSPENDED, None)  # it ran on since, so that memory is of the past
        return "graceful" if graceful else "forced"

    def suspend(self) -> None:
        running = self._launcher.find()
        if not running:
            if self._at_rest() is State.SUSPENDED:
                return
            raise refusals.not_running(self.spec.name, "it cannot be suspended")
        with self._launcher.monitor(running) as monitor:
            monitor.execute("stop")  # what runs on after the saving would be lost
            try:
                self._saved.delete(SUSPENDED, monitor)
                self._saved.save_live(monitor, SUSPENDED, self._running_hardware())
            except InterruptedByUser:
                raise
            except LabError:
                with contextlib.suppress(LabError):
                    monitor.execute("cont")
                raise
            monitor.quit()
        self._end(running, patience=_FLUSH_SECONDS)
        self._launcher.forget()

    def resume(self, forwards: Sequence[Forward]) -> None:
        running = self._launcher.find()
        if not running and self._at_rest() is not State.SUSPENDED:
            raise refusals.not_suspended(self.spec.name)
        self.start(forwards)

    def destroy(self) -> None:
        if running := self._launcher.find():
            self._launcher.end(running)
        launch = self._launcher.launched()
        recorded = [launch.socket, launch.network] if launch else []
        owned = [path for path in recorded if path and self._layout.owns(path)]
        sockets = [self._layout.socket, self._layout.network, *owned]
        self._launcher.forget()
        for path in (*self._layout.files(), *sockets):
            path.unlink(missing_ok=True)
        for path in sockets:
            launching.remove_socket_folder(path, self._layout.folder)
        self._close_journal([*self._layout.files(), *sockets])
        with contextlib.suppress(OSError):
            self.spec.folder.rmdir()  # only when nothing of others is in it

    # Saved states

    def snapshot(self, name: str) -> None:
        tag = tag_of(name)
        running = self._launcher.find()
        if not running:
            self._refuse_unless_stopped(name)
        with self._asking(running) as monitor:
            if self._saved.has(tag, monitor):
                raise refusals.snapshot_exists(name)
            if monitor:
                self._saved.save_live(monitor, tag, self._running_hardware())
            else:
                self._saved.save_disk(tag)

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:
        running = self._launcher.find()
        with self._asking(running) as monitor:
            saved = self._named(name, monitor)
        if running:
            self._end(running)
            self._launcher.forget()
        # The suspended present is given up once the snapshot is in its place, and not before.
        if saved.live:
            self._load(saved.tag, forwards)
        else:
            self._saved.apply_disk(saved.tag)
            self._saved.delete(SUSPENDED, None)

    def snapshots(self) -> list[Snapshot]:
        running = self._launcher.find()
        if not running and not self._layout.disk.exists():
            return []
        with self._asking(running) as monitor:
            return snapshots_of(self._saved.all(monitor))

    # What is

    def status(self) -> State:
        """Raises DeadlineError when a process runs and does not answer: its state is not known."""
        running = self._launcher.find()
        if not running:
            return self._at_rest()
        try:
            with self._launcher.monitor(running) as monitor:
                status = monitor.execute("query-status")["status"]
        except MonitorLostError:
            if self._launcher.find():
                raise
            return self._at_rest()  # it ended meanwhile
        if status == launching.IO_ERROR:
            return State.DISK_FULL
        return State.RUNNING if status in ("running", "save-vm", "restore-vm") else State.PAUSED

    def forwards(self) -> list[Forward]:
        running = self._launcher.find()
        if not running:
            return []
        with self._launcher.monitor(running) as monitor:
            return Forwarding(monitor, running, self._launcher).all()

    def add_forward(self, forward: Forward) -> None:
        running = self._must_run("it has no forwards")
        with self._launcher.monitor(running) as monitor:
            Forwarding(monitor, running, self._launcher).open(forward, self._layout.log)

    def remove_forward(self, name: str) -> None:
        if running := self._launcher.find():
            with self._launcher.monitor(running) as monitor:
                Forwarding(monitor, running, self._launcher).close(name)

    def settings(self) -> dict[str, str]:
        """Empty when the machine does not run: there is nothing to read back from."""
        running = self._launcher.find()
        if not running:
            return {}
        with self._launcher.monitor(running) as monitor:
            return readback.settings(monitor) | readback.host_loopback(running.pid)

    def console(self) -> Path:
        return self._layout.console

    def screenshot(self, target: Path) -> None:
        with self._launcher.monitor(self._must_run("it has no screen")) as monitor:
            readback.screenshot(monitor, target)

    def logs(self) -> list[Path]:
        return [path for path in (self._layout.log,) if path.exists()]

    # Parts

    @property
    def _launcher(self) -> launching.Launcher:
        return launching.Launcher(self._host, self.spec, self._layout, self._journal)

    @contextlib.contextmanager
    def _asking(self, running: psutil.Process | None) -> Iterator[Monitor | None]:
        """The monitor when the machine runs, else None."""
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(self._launcher.monitor(running)) if running else None

    def _must_run(self, so: str) -> psutil.Process:
        """Its process. Raises UsageError, with what follows, when there is none."""
        running = self._launcher.find()
        if not running:
            raise refusals.not_running(self.spec.name, so)
        return running

    def _at_rest(self) -> State:
        """The state of a machine without a process."""
        if not self._layout.disk.exists():
            return State.ABSENT
        return State.SUSPENDED if self._saved.has(SUSPENDED, None) else State.STOPPED

    def _let_run(self, running: psutil.Process) -> None:
        with self._launcher.monitor(running) as monitor:
            launching.let_run(monitor, Deadline.after(_QUIT_SECONDS), self.spec)
            self._saved.delete(SUSPENDED, monitor)  # left there when a resume was cut short

    def _load(self, tag: str, forwards: Sequence[Forward]) -> None:
        self._launcher.launch(self._saved.hardware(tag) or self._fresh_hardware(), forwards, load=tag)
        if running := self._launcher.find():
            self._let_run(running)

    def _fresh_hardware(self) -> Hardware:
        host = self._host
        return hardware(self.spec, host.accelerator(), host.capabilities(host.binary).machine)

    def _running_hardware(self) -> Hardware:
        launch = self._launcher.launched()
        return launch.hardware if launch else self._fresh_hardware()

    def _ask_to_stop(self, running: psutil.Process, deadline: Deadline) -> bool:
        """Press the power button, again and again, for a guest that boots misses it."""
        while not deadline.passed:
            with contextlib.suppress(MonitorLostError, DeadlineError):
                self._press(running, deadline.within(_ASK_AGAIN_SECONDS))
            if process.wait_gone(running, deadline.within(_ASK_AGAIN_SECONDS)):
                return True
        return not process.alive(running)

    def _press(self, running: psutil.Process, deadline: Deadline) -> None:
        with self._launcher.monitor(running, deadline) as monitor:
            if monitor.execute("query-status")["status"] != "running":
                monitor.execute("cont")  # a paused guest cannot hear the button
            monitor.execute("system_powerdown")

    def _end(self, running: psutil.Process, patience: float = _QUIT_SECONDS) -> None:
        """End the process: QEMU flushes its disk when it is asked to quit."""
        with contextlib.suppress(MonitorLostError, DeadlineError), self._launcher.monitor(running) as monitor:
            monitor.quit()
        if not process.wait_gone(running, Deadline.after(patience)):
            self._launcher.end(running)

    def _named(self, name: str, monitor: Monitor | None) -> SavedState:
        """The user's snapshot of that name. Raises UsageError with the nearest names."""
        if monitor is None and not self._layout.disk.exists():
            raise UsageError(f"the machine {self.spec.name} is not created, so it has no snapshots")
        saved = self._saved.all(monitor)
        for item in saved:
            if item.tag == tag_of(name):
                return item
        raise refusals.no_snapshot(name, [item.name for item in snapshots_of(saved)])

    def _refuse_unless_stopped(self, name: str) -> None:
        state = self._at_rest()
        if state is State.ABSENT:
            raise refusals.not_created(self.spec.name)
        if state is State.SUSPENDED:
            raise refusals.suspended(name)

    def _close_journal(self, removed: Sequence[Path]) -> None:
        keys = {str(path) for path in removed}
        for entry in self._journal.entries("file"):
            if entry.key in keys:
                self._journal.gone("file", entry.key)

"""One lab VM on VirtualBox. Nothing is kept in memory: VirtualBox and the folder know it all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lab.core import bounds
from lab.core.deadline import Deadline, poll
from lab.core.errors import DeadlineError, LabError
from lab.core.journal import Journal
from lab.engines import refusals
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import (
    LOOPBACK,
    Forward,
    MachineSpec,
    PortTakenError,
    Snapshot,
    State,
    refuse_full,
)
from lab.engines.virtualbox import basedisk, vboxlog
from lab.engines.virtualbox.layout import VirtualBoxLayout
from lab.engines.virtualbox.transport import Transport
from lab.engines.virtualbox.vm import STATES, RegisteredVm, VmPatience
from lab.host.ports import is_free

_LAUNCH_SECONDS = 180.0
_CONVERT_SECONDS = 900.0


class VirtualBoxMachine:
    """lab.engines.protocol.Machine on VirtualBox."""

    def __init__(
        self,
        spec: MachineSpec,
        journal: Journal,
        connect: Callable[[], Transport],
        options: VirtualBoxOptions,
        cache: Path,
        *,
        base_disk: Callable[[Path, int, Path, basedisk.Convert], Path] = basedisk.ensure,
        is_free: Callable[[int], bool] = is_free,
        patience: VmPatience = VmPatience(),  # noqa: B008 - it is frozen
    ) -> None:
        self.spec = spec
        self._journal = journal
        self._vm = RegisteredVm(spec, connect, patience)
        self._base_disk = base_disk
        self._is_free = is_free
        self._patience = patience
        self._options = options
        self._cache = cache
        self._layout = VirtualBoxLayout(spec.folder)

    # Power

    def create(self) -> None:
        spec, layout = self.spec, self._layout
        spec.folder.mkdir(parents=True, exist_ok=True)
        if self._vm.look()["state"] not in ("", "PoweredOff", "Aborted"):
            return  # in use, so it exists; its settings cannot be changed now
        base = self._base_disk(spec.base_disk, spec.disk_gib, self._cache, self._convert)
        for kind, key in (("vm", spec.uuid), ("file", str(layout.settings)), ("file", str(layout.disk))):
            self._journal.intend(kind, key, base=str(base))
        self._vm.call(
            "create",
            spec={
                "uuid": spec.uuid,
                # Unlike any other VM's, so that a name is never what decides.
                "name": f"lab-{spec.name}-{spec.uuid[:8]}",
                "folder": str(spec.folder),
                "settings": str(layout.settings),
                "disk": str(layout.disk),
                "console": str(layout.console),
                "base": str(base),
                "seed": str(spec.seed),
                "cpus": spec.cpus,
                "memory_mib": spec.memory_mib,
                "paravirt": spec.paravirt,
                "nested": spec.nested,
                "execution_engine": self._options.execution_engine,
                "extra_data": list(self._options.extra_data),
            },
        )
        for kind, key in (("vm", spec.uuid), ("file", str(layout.settings)), ("file", str(layout.disk))):
            self._journal.done(kind, key)

    def start(self, forwards: Sequence[Forward]) -> None:
        """Power on; a suspended machine is resumed instead, so that its memory is not lost."""
        state = self._vm.settled()
        if state == "":
            raise refusals.not_created(self.spec.name)
        if state == "Paused":
            if self._is_full():
                refuse_full(self.spec.folder, self.spec.name)
            self._vm.ask("resume")
        if state in ("Running", "Paused"):
            return
        if state == "Stuck":
            self._vm.ask("power_off")
        self._launch(forwards)

    def _launch(self, forwards: Sequence[Forward]) -> None:
        self._must_be_free(forwards)
        self._vm.end_stale_process()
        self._keep_console()
        self._vm.ask("launch", Deadline.after(_LAUNCH_SECONDS), forwards=[asdict(item) for item in forwards])

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        state = self._vm.settled()
        if state in ("", "PoweredOff", "Saved", "Aborted", "AbortedSaved"):
            return "already"  # a suspended machine's memory is kept
        while state != "Stuck" and not deadline.passed:
            # Again and again: a guest that boots misses the button.
            self._vm.ask("press")
            if self._vm.is_off(deadline.within(self._patience.ask_again)):
                return "graceful"
        return "forced" if self._vm.ask("power_off") else "graceful"

    def suspend(self) -> None:
        state = self._vm.settled()
        if state in ("Saved", "AbortedSaved"):
            return
        if state not in ("Running", "Paused"):
            raise refusals.not_running(self.spec.name, "it cannot be suspended")
        self._vm.move_memory("save")

    def resume(self, forwards: Sequence[Forward]) -> None:
        if self._vm.settled() not in ("Saved", "AbortedSaved", "Paused", "Running"):
            raise refusals.not_suspended(self.spec.name)
        self.start(forwards)

    def destroy(self) -> None:
        spec = self.spec
        made = spec.folder.is_dir() and any(spec.folder.iterdir())  # its settings may be lost, and it may run
        if made or self._journal.entries("vm"):
            base = next((str(e.facts["base"]) for e in self._journal.entries("vm") if "base" in e.facts), "")
            self._vm.ask(
                "destroy",
                Deadline.after(_LAUNCH_SECONDS),
                folder=str(spec.folder),
                base=base,
                seed=str(spec.seed),
            )
            if self._vm.look()["state"]:
                raise LabError(f"VirtualBox still has the machine {spec.uuid} after it was unregistered")
        shutil.rmtree(spec.folder, ignore_errors=True)
        for kind, key in (
            ("vm", spec.uuid),
            ("file", str(self._layout.settings)),
            ("file", str(self._layout.disk)),
        ):
            self._journal.gone(kind, key)

    # Saved states

    def snapshot(self, name: str) -> None:
        state = self._vm.settled()
        if state == "":
            raise refusals.not_created(self.spec.name)
        if state in ("Saved", "AbortedSaved"):
            raise refusals.suspended(name)
        if any(item["name"] == name for item in self._vm.snapshots()):
            raise refusals.snapshot_exists(name)
        self._vm.move_memory("take", name=name)

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:
        snapshot = self._vm.snapshot(name)
        if self._vm.settled() not in ("PoweredOff", "Saved", "Aborted", "AbortedSaved"):
            self._vm.ask("power_off")
        # Saved memory goes with it, and not before: VirtualBox drops it once the snapshot is in its place.
        self._vm.move_memory("restore", identity=snapshot["id"])
        if snapshot["live"]:
            self._launch(forwards)

    def snapshots(self) -> list[Snapshot]:
        return [
            Snapshot(item["name"], datetime.fromtimestamp(item["created"], UTC), item["live"])
            for item in self._vm.snapshots()
        ]

    # What is

    def status(self) -> State:
        state = STATES.get(self._vm.settled(), State.PAUSED)
        return State.DISK_FULL if state is State.PAUSED and self._is_full() else state

    def _is_full(self) -> bool:
        """Whether VirtualBox paused it for want of space on the host: only its log says so."""
        return bool(vboxlog.parse(self._log()).disk_full)

    def forwards(self) -> list[Forward]:
        if self.status() is not State.RUNNING:
            return []
        redirects = self._vm.ask("forwards")
        return [
            Forward(item["name"], item["host_port"], item["guest_port"])
            for item in redirects
            if item["address"] == LOOPBACK
        ]

    def add_forward(self, forward: Forward) -> None:
        if self.status() is not State.RUNNING:
            raise refusals.not_running(self.spec.name, "it has no forwards")
        if forward in self.forwards():
            return
        self._must_be_free([forward])
        self._vm.ask("forward", item=asdict(forward))

        def listens() -> bool | None:
            return None if self._is_free(forward.host_port) else True

        try:
            poll(listens, Deadline.after(self._patience.listen), "the forward's listening", every=0.1)
        except DeadlineError as error:
            self.remove_forward(forward.name)
            raise PortTakenError(
                f"VirtualBox took the forward of host port {forward.host_port} and does not listen on it",
                [forward.host_port],
                evidence=self.logs(),
            ) from error

    def remove_forward(self, name: str) -> None:
        if self.status() is State.RUNNING:
            self._vm.ask("unforward", name=name)

    def settings(self) -> dict[str, str]:
        """VirtualBox's own read-back, and what its log says of the run: neither is evidence of nesting."""
        if self.status() is State.ABSENT:
            return {}
        read_back: dict[str, str] = self._vm.ask("settings")
        read_back |= vboxlog.settings(self._log())
        return {key: value for key, value in read_back.items() if value}

    def console(self) -> Path:
        return self._layout.console

    def screenshot(self, target: Path) -> None:
        if self._vm.settled() not in ("Running", "Paused"):
            raise refusals.not_running(self.spec.name, "it has no screen")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.absolute().with_name(f".{target.name}.part")
        try:
            self._vm.ask("screenshot", target=str(part))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def logs(self) -> list[Path]:
        others = (self._layout.console_before, self._layout.settings)
        return [*self._layout.logs(), *(path for path in others if path.exists())]

    # Parts

    def _convert(self, source: Path, target: Path, size: int) -> None:
        deadline = Deadline.after(_CONVERT_SECONDS)
        self._vm.call("convert", deadline, source=str(source), target=str(target), size=size)

    def _keep_console(self) -> None:
        if self._layout.console.exists():
            with self._layout.console.open("rb") as old, self._layout.console_before.open("ab") as kept:
                shutil.copyfileobj(old, kept)

    def _log(self) -> str:
        try:
            return bounds.read_text(self._layout.log)
        except OSError:
            return ""

    def _must_be_free(self, forwards: Sequence[Forward]) -> None:
        """VirtualBox is silent about a port it cannot bind, so it is tried first. Raises PortTakenError."""
        if taken := [item.host_port for item in forwards if not self._is_free(item.host_port)]:
            raise PortTakenError(f"host port {', '.join(map(str, taken))} is taken", taken)

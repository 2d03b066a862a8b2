"""One lab VM on VirtualBox. Nothing is kept in memory: VirtualBox and the folder know it all."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from lab import bounds
from lab.deadline import Deadline, NotYet, poll
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
from lab.engines.virtualbox.layout import Layout
from lab.engines.virtualbox.transport import MissingError, Transport
from lab.errors import DeadlineError, LabError, UsageError
from lab.host.ports import is_free
from lab.journal import Journal

_STATES = {
    "": State.ABSENT,
    "Running": State.RUNNING,
    "Paused": State.PAUSED,
    "Saved": State.SUSPENDED,
    # Since 7.0: its process died while it loaded the saved memory, which is still whole.
    "AbortedSaved": State.SUSPENDED,
    # Its memory is in the guest's own hands no more: power on anew.
    "PoweredOff": State.STOPPED,
    "Aborted": State.STOPPED,
    "Stuck": State.CRASHED,  # VirtualBox's guru meditation
}
"""What VirtualBox's settled states are to lab."""

_SETTLE_SECONDS = 60.0
_LAUNCH_SECONDS = 180.0
_CONVERT_SECONDS = 900.0
_LISTEN_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 5.0
_LINGER_SECONDS = 30.0
"""A VM process whose VBoxSVC died ends by itself, about 15 s later."""
_SLOWEST_MIB_PER_SECOND = 20


class VirtualBoxMachine:
    """lab.engines.protocol.Machine on VirtualBox."""

    def __init__(
        self,
        spec: MachineSpec,
        journal: Journal,
        connect: Callable[[], Transport],
        options: VirtualBoxOptions,
        cache: Path,
    ) -> None:
        self.spec = spec
        self._journal = journal
        self._connect = connect
        self._options = options
        self._cache = cache
        self._layout = Layout(spec.folder)

    # Power

    def create(self) -> None:
        spec, layout = self.spec, self._layout
        spec.folder.mkdir(parents=True, exist_ok=True)
        if self._look()["state"] not in ("", "PoweredOff", "Aborted"):
            return  # in use, so it exists; its settings cannot be changed now
        base = basedisk.ensure(spec.base_disk, spec.disk_gib, self._cache, self._convert)
        for kind, key in (("vm", spec.uuid), ("file", str(layout.settings)), ("file", str(layout.disk))):
            self._journal.intend(kind, key, base=str(base))
        self._ask(
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
        state = self._settled()
        if state == "":
            raise LabError(f"the machine {self.spec.name} is not created yet", hint="run `invoke lab.up`")
        if state == "Paused":
            if self._is_full():
                refuse_full(self.spec.folder, self.spec.name)
            self._ask("resume", uuid=self.spec.uuid)
        if state in ("Running", "Paused"):
            return
        if state == "Stuck":
            self._ask("power_off", uuid=self.spec.uuid)
        self._launch(forwards)

    def _launch(self, forwards: Sequence[Forward]) -> None:
        _must_be_free(forwards)
        self._wait_for_stale_process()
        self._keep_console()
        self._slowly("launch", _LAUNCH_SECONDS, forwards=[asdict(item) for item in forwards])

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        state = self._settled()
        if state in ("", "PoweredOff", "Saved", "Aborted", "AbortedSaved"):
            return "already"  # a suspended machine's memory is kept
        while state != "Stuck" and not deadline.passed:
            # Again and again: a guest that boots misses the button.
            self._ask("press", uuid=self.spec.uuid)
            if self._gone(deadline.within(_ASK_AGAIN_SECONDS)):
                return "graceful"
        return "forced" if self._ask("power_off", uuid=self.spec.uuid) else "graceful"

    def suspend(self) -> None:
        state = self._settled()
        if state in ("Saved", "AbortedSaved"):
            return
        if state not in ("Running", "Paused"):
            raise UsageError(f"the machine {self.spec.name} does not run, so it cannot be suspended")
        self._slowly("save", self._memory_seconds)

    def resume(self, forwards: Sequence[Forward]) -> None:
        if self._settled() not in ("Saved", "AbortedSaved", "Paused", "Running"):
            raise UsageError(
                f"the machine {self.spec.name} is not suspended", hint="start it with `invoke lab.up`"
            )
        self.start(forwards)

    def destroy(self) -> None:
        spec = self.spec
        made = spec.folder.is_dir() and any(spec.folder.iterdir())  # its settings may be lost, and it may run
        if made or self._journal.entries("vm"):
            base = next((str(e.facts["base"]) for e in self._journal.entries("vm") if "base" in e.facts), "")
            self._ask(
                "destroy",
                Deadline.after(_LAUNCH_SECONDS),
                uuid=spec.uuid,
                folder=str(spec.folder),
                base=base,
                seed=str(spec.seed),
            )
            if self._look()["state"]:
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
        state = self._settled()
        if state == "":
            raise UsageError(f"the machine {self.spec.name} is not created", hint="run `invoke lab.up`")
        if state in ("Saved", "AbortedSaved"):
            raise UsageError(
                f"a suspended machine's memory cannot go into the snapshot `{name}`",
                hint="resume it first (`invoke lab.resume`)",
            )
        if any(item["name"] == name for item in self._listing()):
            raise UsageError(f"there is a snapshot `{name}` already", hint="choose another name")
        self._slowly("take", self._memory_seconds, name=name)

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:
        found = self._named(name)
        if self._settled() not in ("PoweredOff", "Saved", "Aborted", "AbortedSaved"):
            self._ask("power_off", uuid=self.spec.uuid)
        # Saved memory goes with it, and not before: VirtualBox drops it once the snapshot is in its place.
        self._slowly("restore", self._memory_seconds, identity=found["id"])
        if found["live"]:
            self._launch(forwards)

    def snapshots(self) -> list[Snapshot]:
        return [
            Snapshot(item["name"], datetime.fromtimestamp(item["created"], UTC), item["live"])
            for item in self._listing()
        ]

    # What is

    def status(self) -> State:
        state = _STATES.get(self._settled(), State.PAUSED)
        return State.DISK_FULL if state is State.PAUSED and self._is_full() else state

    def _is_full(self) -> bool:
        """Whether VirtualBox paused it for want of space on the host: only its log says so."""
        return bool(vboxlog.parse(self._log()).disk_full)

    def forwards(self) -> list[Forward]:
        if self.status() is not State.RUNNING:
            return []
        found = self._ask("forwards", uuid=self.spec.uuid)
        return [
            Forward(item["name"], item["host_port"], item["guest_port"])
            for item in found
            if item["address"] == LOOPBACK
        ]

    def add_forward(self, forward: Forward) -> None:
        if self.status() is not State.RUNNING:
            raise UsageError(f"the machine {self.spec.name} does not run, so it has no forwards")
        if forward in self.forwards():
            return
        _must_be_free([forward])
        self._ask("forward", uuid=self.spec.uuid, item=asdict(forward))

        def listens() -> bool | None:
            return None if is_free(forward.host_port) else True

        try:
            poll(listens, Deadline.after(_LISTEN_SECONDS), "the forward's listening", every=0.1)
        except DeadlineError as error:
            self.remove_forward(forward.name)
            raise PortTakenError(
                f"VirtualBox took the forward of host port {forward.host_port} and does not listen on it",
                [forward.host_port],
                evidence=self.logs(),
            ) from error

    def remove_forward(self, name: str) -> None:
        if self.status() is State.RUNNING:
            self._ask("unforward", uuid=self.spec.uuid, name=name)

    def settings(self) -> dict[str, str]:
        """VirtualBox's own read-back, and what its log says of the run: neither is evidence of nesting."""
        if self.status() is State.ABSENT:
            return {}
        found: dict[str, str] = self._ask("settings", uuid=self.spec.uuid)
        found |= vboxlog.settings(self._log())
        return {key: value for key, value in found.items() if value}

    def console(self) -> Path:
        return self._layout.console

    def screenshot(self, target: Path) -> None:
        if self._settled() not in ("Running", "Paused"):
            raise UsageError(f"the machine {self.spec.name} does not run, so it has no screen")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.absolute().with_name(f".{target.name}.part")
        try:
            self._ask("screenshot", uuid=self.spec.uuid, target=str(part))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def logs(self) -> list[Path]:
        others = (self._layout.console_before, self._layout.settings)
        return [*self._layout.logs(), *(path for path in others if path.exists())]

    # Parts

    @property
    def _memory_seconds(self) -> float:
        return 120 + self.spec.memory_mib / _SLOWEST_MIB_PER_SECOND

    def _ask(self, operation: str, deadline: Deadline | None = None, **words: Any) -> Any:
        return self._connect().call(operation, deadline, **words)

    def _slowly(self, operation: str, seconds: float, **words: Any) -> None:
        self._ask(operation, Deadline.after(seconds), uuid=self.spec.uuid, **words)

    def _convert(self, source: Path, target: Path, size: int) -> None:
        self._ask(
            "convert", Deadline.after(_CONVERT_SECONDS), source=str(source), target=str(target), size=size
        )

    def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("look", uuid=self.spec.uuid)
        if not found["accessible"]:
            raise LabError(
                f"VirtualBox cannot read the settings of lab {self.spec.name}",
                evidence=[found["settings"]],
                hint=f"`invoke lab.destroy --name {self.spec.name}` removes what is left of it",
            )
        return found

    def _settled(self) -> str:
        """VirtualBox's own name of the state, once it is none of passage. DeadlineError when it stays so."""

        def settled() -> str:
            state = str(self._look()["state"])
            if state not in _STATES:
                raise NotYet(state)
            return state

        return poll(settled, Deadline.after(_SETTLE_SECONDS), "a settled state of the VM", every=0.1)

    def _gone(self, deadline: Deadline) -> bool:
        """Whether it powers off before the deadline."""

        def off() -> bool:
            state = self._look()["state"]
            if state not in ("PoweredOff", "Aborted"):
                raise NotYet(state)
            return True

        try:
            return poll(off, deadline, "the VM's power-off")
        except DeadlineError:
            return False

    def _wait_for_stale_process(self) -> None:
        """VirtualBox says it is off: a process of it still there lost its VBoxSVC, and ends in a moment."""
        stale = vm_processes(self.spec.uuid)
        if not stale:
            return
        _, alive = psutil.wait_procs(stale, timeout=_LINGER_SECONDS)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=_ASK_AGAIN_SECONDS)

    def _keep_console(self) -> None:
        if self._layout.console.exists():
            with self._layout.console.open("rb") as old, self._layout.console_before.open("ab") as kept:
                shutil.copyfileobj(old, kept)

    def _listing(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._ask("snapshots", uuid=self.spec.uuid)
        except MissingError:
            return []
        return found

    def _named(self, name: str) -> dict[str, Any]:
        """The snapshot of that name. Raises UsageError with the nearest names."""
        known = {item["name"]: item for item in self._listing()}
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, 3, 0.3) or list(known)
        raise UsageError(
            f"there is no snapshot `{name}`",
            hint=f"there is: {', '.join(near)}" if near else "`invoke lab.snapshot NAME` takes one",
        )

    def _log(self) -> str:
        try:
            return bounds.read_text(self._layout.log)
        except OSError:
            return ""


def _must_be_free(forwards: Sequence[Forward]) -> None:
    """VirtualBox is silent about a port it cannot bind, so it is tried first. Raises PortTakenError."""
    if taken := [item.host_port for item in forwards if not is_free(item.host_port)]:
        raise PortTakenError(f"host port {', '.join(map(str, taken))} is taken", taken)


def vm_processes(uuid: str) -> list[psutil.Process]:
    """The VirtualBox processes that run this machine: known by its UUID among their arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
        except psutil.Error:
            continue
        if argv and Path(argv[0]).name.startswith(("VBoxHeadless", "VirtualBoxVM")) and uuid in argv:
            found.append(process)
    return found

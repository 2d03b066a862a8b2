"""A machine: its settings, which only a session may change and only `saveSettings` keeps, and its life."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.vboxcom.media import Medium, Progress
from tests.integration.vboxcom.raw import (
    E_ACCESSDENIED,
    E_INVALIDARG,
    INVALID_OBJECT_STATE,
    INVALID_VM_STATE,
    ComError,
    Node,
    Raw,
    node_of,
)
from tests.integration.vboxcom.running import Session
from tests.integration.vboxcom.settings import Parts, fresh
from tests.integration.vboxcom.snapshots import Snapshot, Snapshots

OFF = ("PoweredOff", "Saved", "Aborted", "AbortedSaved")
_EVEN_IF_BROKEN = ("parent", "id", "settingsFilePath", "accessible", "accessError", "unregister")


class Record:
    """What there is once of a machine, however many objects show it."""

    def __init__(self, world: Any, file: Path, identity: str = "") -> None:
        self.world = world
        self.file = file
        self.uuid = identity
        self.settings: dict[str, Any] = {}
        self.draft: dict[str, Any] | None = None
        """The settings under a lock."""
        self.state = "PoweredOff"
        self.accessible = True
        self.vm = False
        self.holders: list[Session] = []
        self.lingering = 0
        """How often a VM process that ended is still seen holding its machine."""
        self.snapshots: dict[str, Snapshot] = {}
        self.current = ""

    @property
    def name(self) -> str:
        return str(self.settings.get("IMachine", {}).get("name", ""))

    def fresh(self, name: str, groups: list[str], system: str) -> None:
        self.settings = fresh(self.world, name, groups, system)

    def begin(self) -> None:
        self.draft = copy.deepcopy(self.settings)

    def save(self) -> None:
        self.settings = copy.deepcopy(self.draft or self.settings)
        self.write()

    def write(self) -> None:
        self.file.write_text(json.dumps({"uuid": self.uuid, "state": self.state, "settings": self.settings}))

    def reload(self) -> bool:
        """From its file, as a VBoxSVC does that has just started; says whether it could be read."""
        try:
            said = json.loads(self.file.read_text())
            self.uuid, self.settings = said["uuid"], said["settings"]
            self.accessible = True
        except (OSError, ValueError):
            self.accessible = False
        return self.accessible

    def attached(self, settings: dict[str, Any] | None = None) -> Iterator[Medium]:
        for item in (self.settings if settings is None else settings)["attachments"]:
            if item["medium"]:
                yield self.world.media[item["medium"]]

    def start(self) -> None:
        self.state, self.vm = "Running", True
        if self.draft is None:
            self.begin()

    def end(self, state: str) -> None:
        """The VM process is gone, and with it every session that shared it."""
        self.state, self.vm, self.lingering = state, False, 2
        for session in self.holders:
            session.record = None
        self.holders, self.draft = [], None


class Machine(Parts, Snapshots, Node):
    """One of a record's objects: `session` holds the lock, `alone` is one that was just made or opened."""

    interface = "IMachine"

    def __init__(self, record: Record, session: Session | None = None, alone: bool = False) -> None:
        super().__init__(record.world)
        self.record = record
        self.session = session
        self.alone = alone
        self.add_parts()

    @property
    def settings(self) -> dict[str, Any]:
        if self.session is not None and self.record.draft is not None:
            return self.record.draft
        return self.record.settings

    @property
    def values(self) -> dict[str, Any]:
        return self.settings.get("IMachine", {})

    @values.setter
    def values(self, _values: dict[str, Any]) -> None:
        pass

    def check(self, name: str, write: bool) -> None:
        if not self.record.accessible and name not in _EVEN_IF_BROKEN:
            raise ComError(E_ACCESSDENIED, f"The machine {self.record.uuid} is not accessible")
        if write:
            self.must_be_mutable()

    def must_be_mutable(self, anyhow: bool = False) -> None:
        """`anyhow`: while it runs, and while it has saved memory, too."""
        locked = self.session is not None and self.session.record is self.record
        if not (self.alone or locked):
            raise ComError(INVALID_VM_STATE, "The machine is not mutable (no session holds it)")
        if self.record.state not in ("PoweredOff", "Aborted") and not anyhow:
            raise ComError(INVALID_VM_STATE, f"The machine is not mutable (state is {self.record.state})")

    def _must_be(self, *states: str) -> None:
        if self.record.state not in states:
            raise ComError(INVALID_VM_STATE, f"Invalid machine state: {self.record.state}")

    def get_id(self) -> str:
        return self.record.uuid

    def get_accessible(self) -> bool:
        return self.record.accessible or self.record.reload()

    def get_settings_file_path(self) -> str:
        return str(self.record.file)

    def get_state(self) -> int:
        return self.world.number("MachineState", self.record.state)

    def get_session_state(self) -> int:
        held = self.record.holders or self.record.vm or self.record.lingering
        self.record.lingering = max(0, self.record.lingering - 1)
        return self.world.number("SessionState", "Locked" if held else "Unlocked")

    def get_session_pid(self) -> int:
        return os.getpid() if self.record.holders or self.record.vm else 0

    def call_set_extra_data(self, key: str, value: str) -> None:
        self.must_be_mutable(anyhow=True)
        self.settings["extra"][key] = value

    def call_save_settings(self) -> None:
        self.must_be_mutable(anyhow=True)
        self.record.save()

    def call_lock_machine(self, session: Raw, kind: int) -> None:
        node_of(session).lock(self.record, self.world.label("LockType", kind) == "Write")

    def call_launch_vm_process(self, session: Raw, name: str, _environment: list[str]) -> Raw:
        assert name == "headless"
        holder: Session = node_of(session)
        self._must_be(*OFF)
        holder.lock(self.record, write=True)
        before, self.record.state = self.record.state, "Starting"

        def started() -> None:
            self.record.start()

        def failed() -> None:
            self.record.end(before)

        return _Launch(self.world, started, failed).raw

    def call_save_state(self) -> Raw:
        self._must_be("Running", "Paused")
        return Progress(self.world, "saveState", lambda: self.record.end("Saved")).raw

    def call_discard_saved_state(self, _remove: bool) -> None:
        self.must_be_mutable(anyhow=True)
        self._must_be("Saved", "AbortedSaved")
        self.record.state = "PoweredOff"

    def call_unregister(self, mode: int) -> list[Raw]:
        label = self.world.label("CleanupMode", mode)
        if self.record.holders or self.record.vm or self.record.lingering:
            self.record.lingering = max(0, self.record.lingering - 1)
            said = f"Cannot unregister the machine '{self.record.name}' while it is locked"
            raise ComError(INVALID_OBJECT_STATE, said)
        del self.world.records[self.record.uuid]
        if label == "UnregisterOnly":
            return []
        assert label == "DetachAllReturnHardDisksOnly"
        return [
            item.raw for item in self._detach() if item.kind == self.world.number("DeviceType", "HardDisk")
        ]

    def _detach(self) -> list[Medium]:
        """All media of it and its snapshots, used by it no more."""
        users = {self.record.uuid, *self.record.snapshots}
        found = [item for item in self.world.media.values() if item.users & users]
        for item in found:
            item.users -= users
        return found

    def call_add_storage_controller(self, name: str, bus: int) -> Raw:
        self.must_be_mutable()
        if any(item["name"] == name for item in self.settings["controllers"]):
            raise ComError(E_INVALIDARG, f"Storage controller named '{name}' already exists")
        self.settings["controllers"].append({"name": name, "bus": bus, "controllerType": 0, "portCount": 1})
        return self.part("IStorageController", self.settings["controllers"][-1]).raw

    def call_attach_device(self, controller: str, port: int, device: int, kind: int, medium: Raw) -> None:
        self.must_be_mutable()
        (owner,) = (item for item in self.settings["controllers"] if item["name"] == controller)
        taken = any(
            (item["controller"], item["port"]) == (controller, port) for item in self.settings["attachments"]
        )
        if taken or port >= owner["portCount"]:
            raise ComError(E_INVALIDARG, f"Port {port} of '{controller}' is taken, or it has no such port")
        node: Medium = node_of(medium)
        node.users.add(self.record.uuid)
        place = {"controller": controller, "port": port, "device": device, "type": kind}
        self.settings["attachments"].append(place | {"medium": node.identity})


class _Launch(Progress):
    """A start that fails leaves the machine as it was, and the session without it."""

    def __init__(self, world: Any, started: Any, failed: Any) -> None:
        super().__init__(world, "launchVMProcess", started)
        self._failed = failed

    def call_wait_for_completion(self, milliseconds: int) -> None:
        super().call_wait_for_completion(milliseconds)
        if self._error is not None:
            self._failed()

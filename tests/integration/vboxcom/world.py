"""One VirtualBox of one version: what is registered with it, its media, and what shall go wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vboxcom.machine import Machine, Record
from tests.integration.vboxcom.media import Medium, contents
from tests.integration.vboxcom.raw import (
    E_INVALIDARG,
    FILE_ERROR,
    OBJECT_NOT_FOUND,
    ComError,
    Log,
    Node,
    Raw,
    node_of,
)
from tests.integration.vboxcom.running import Session
from tests.integration.vboxcom.signatures import Table


class World:
    """`version` is that of the API, such as "7.2"; `release` what it calls itself."""

    def __init__(self, table: Table, constants: Any, release: str) -> None:
        self.table = table
        self.constants = constants
        self.release = release
        self.log = Log()
        self.dead = False
        self.records: dict[str, Record] = {}
        self.media: dict[str, Medium] = {}
        self.features = {"HWVirtEx", "NestedHWVirt", "NestedPaging", "LongMode"}
        self.broken: dict[str, str] = {}
        """What a progress object says in the end instead of doing the work, by the method that gave it."""
        self.polite = True
        """Whether the guest obeys the power button."""
        self.picture: Callable[[bytes], Any] = bytes
        """A screenshot as this binding hands it over."""
        self.merge_into_child = True
        """Which of two media is left when a snapshot is deleted: VirtualBox chooses by their sizes."""
        self.clock = 1_700_000_000_000

    def number(self, enum: str, label: str) -> int:
        return self.constants.all_values(enum)[label]

    def label(self, enum: str, number: int) -> str:
        return next(name for name, value in self.constants.all_values(enum).items() if value == number)

    def now(self) -> int:
        self.clock += 1000
        return self.clock

    def client(self) -> Node:
        node = Node(self, interface="IVirtualBoxClient")
        node.parts["virtualBox"] = lambda: VirtualBox(self)
        return node

    def session(self) -> Session:
        return Session(self)

    def machine(self, identity: str) -> Record:
        return self.records[identity]

    def restart(self) -> None:
        """VBoxSVC ends and a new one starts: it knows what is on disk. No VM may run."""
        for record in self.records.values():
            record.reload()


class VirtualBox(Node):
    interface = "IVirtualBox"
    world: World

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.parts["host"] = lambda: Host(world)

    def get_version(self) -> str:
        return self.world.release + "_Debian"

    def get_version_normalized(self) -> str:
        return self.world.release

    def get_api_version(self) -> str:
        return self.world.table.version.replace(".", "_")

    def call_find_machine(self, wanted: str) -> Raw:
        for record in self.world.records.values():
            if wanted in (record.uuid, record.name):
                return Machine(record).raw
        raise ComError(OBJECT_NOT_FOUND, f"Could not find a registered machine with UUID {{{wanted}}}")

    def call_create_machine(self, settings: str, name: str, *words: Any) -> Raw:
        # 7.1 put the platform between; what follows the flags are 7.0's three for encryption.
        groups, system, flags, *_ = words[self.world.table.version >= "7.1" :]
        if Path(settings).exists():
            raise ComError(FILE_ERROR, f"Machine settings file '{settings}' already exists")
        asked = dict(part.split("=") for part in flags.split(",") if part)
        record = Record(self.world, Path(settings), asked.get("UUID", str(uuid.uuid4())))
        record.fresh(name, groups, system)
        return Machine(record, alone=True).raw

    def call_open_machine(self, settings: str, *_password: str) -> Raw:
        record = Record(self.world, Path(settings))
        if not record.reload():
            raise ComError(FILE_ERROR, f"Could not read the settings file '{settings}'")
        return Machine(record, alone=True).raw

    def call_register_machine(self, raw: Raw) -> None:
        record = node_of(raw).record
        if record.uuid in self.world.records:
            raise ComError(E_INVALIDARG, f"a machine {record.uuid} is registered already")
        record.write()
        self.world.records[record.uuid] = record

    def call_create_medium(self, form: str, location: str, _mode: int, kind: int) -> Raw:
        return Medium(self.world, Path(location), kind, form).raw

    def call_open_medium(self, location: str, kind: int, _mode: int, _fresh: bool) -> Raw:
        path = Path(location)
        for medium in self.world.media.values():
            if medium.location == path:
                return medium.raw
        if not path.is_file():
            raise ComError(OBJECT_NOT_FOUND, "Object corresponding to the supplied arguments does not exist")
        identity, parent = contents(path)
        if parent and parent not in self.world.media:
            raise ComError(OBJECT_NOT_FOUND, f"Parent medium {parent} of '{location}' is not found")
        medium = Medium(self.world, path, kind, "VDI", identity)
        medium.register(self.world.media.get(parent))
        return medium.raw

    def call_get_hard_disks(self) -> list[Raw]:
        return self._registered("HardDisk")

    def call_get_dvd_images(self) -> list[Raw]:
        return self._registered("DVD")

    def _registered(self, label: str) -> list[Raw]:
        kind = self.world.number("DeviceType", label)
        return [item.raw for item in self.world.media.values() if item.kind == kind and item.parent is None]


class Host(Node):
    interface = "IHost"
    world: World

    def call_get_processor_feature(self, number: int) -> bool:
        return self.world.label("ProcessorFeature", number) in self.world.features

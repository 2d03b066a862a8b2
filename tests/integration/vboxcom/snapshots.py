"""Snapshots: a tree, each with the settings and the media of its moment."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any

from tests.integration.vboxcom.media import Medium, Progress
from tests.integration.vboxcom.raw import (
    E_FAIL,
    INVALID_VM_STATE,
    OBJECT_NOT_FOUND,
    ComError,
    Node,
    Raw,
    node_of,
)

if TYPE_CHECKING:
    from tests.integration.vboxcom.machine import Record


class Snapshot(Node):
    interface = "ISnapshot"

    def __init__(self, record: Record, name: str) -> None:
        super().__init__(record.world)
        self.record = record
        self.identity = str(uuid.uuid4())
        self.settings = copy.deepcopy(record.settings)
        self.parent = record.current
        self.values = {
            "id": self.identity,
            "name": name,
            "timeStamp": self.world.now(),
            "online": record.vm,
        }

    @property
    def children(self) -> list[Snapshot]:
        return [item for item in self.record.snapshots.values() if item.parent == self.identity]

    def call_get_children(self) -> list[Raw]:
        return [item.raw for item in self.children]


class Snapshots:
    """The share of IMachine that is about them."""

    world: Any
    record: Record

    def must_be_mutable(self, anyhow: bool = False) -> None:
        raise NotImplementedError

    def get_snapshot_count(self) -> int:
        return len(self.record.snapshots)

    def call_find_snapshot(self, wanted: str) -> Raw:
        for item in self.record.snapshots.values():
            if wanted in (item.identity, item.values["name"]) or (not wanted and not item.parent):
                return item.raw
        raise ComError(OBJECT_NOT_FOUND, f"Could not find a snapshot '{wanted}'")

    def call_take_snapshot(self, name: str, _description: str, pause: bool) -> tuple[Raw, str]:
        self.must_be_mutable(anyhow=True)
        if not pause and not self.record.vm:
            raise ComError(INVALID_VM_STATE, "Cannot take a live snapshot of a machine that is off")
        snapshot = Snapshot(self.record, name)

        def take() -> None:
            self.record.snapshots[snapshot.identity] = snapshot
            self.record.current = snapshot.identity
            for medium in list(self.record.attached()):
                medium.users.add(snapshot.identity)
            self._grow(snapshot)

        return Progress(self.world, "takeSnapshot", take).raw, snapshot.identity

    def _grow(self, snapshot: Snapshot) -> None:
        """The present stands on differences to the snapshot's media."""
        self.record.settings = copy.deepcopy(snapshot.settings)
        for item in self.record.settings["attachments"]:
            medium: Medium = self.world.media[item["medium"]]
            medium.users.discard(self.record.uuid)
            if medium.kind == self.world.number("DeviceType", "HardDisk"):
                name = f"{{{uuid.uuid4()}}}.vdi"
                child = Medium(self.world, self.record.file.parent / "Snapshots" / name, medium.kind, "VDI")
                child.create(medium)
                medium, item["medium"] = child, child.identity
            medium.users.add(self.record.uuid)
        if self.record.draft is not None:
            self.record.begin()
        self.record.write()

    def call_restore_snapshot(self, raw: Raw) -> Raw:
        self.must_be_mutable(anyhow=True)
        if self.record.vm:
            raise ComError(INVALID_VM_STATE, "The machine must not run")
        snapshot: Snapshot = node_of(raw)

        def restore() -> None:
            for medium in list(self.record.attached()):
                medium.users.discard(self.record.uuid)
                if not medium.users and medium.kind == self.world.number("DeviceType", "HardDisk"):
                    medium.remove()
            self._grow(snapshot)
            self.record.current = snapshot.identity
            self.record.state = "Saved" if snapshot.values["online"] else "PoweredOff"

        return Progress(self.world, "restoreSnapshot", restore).raw

    def call_delete_snapshot(self, identity: str) -> Raw:
        self.must_be_mutable(anyhow=True)
        if identity not in self.record.snapshots:
            raise ComError(OBJECT_NOT_FOUND, f"Could not find a snapshot {identity}")
        snapshot = self.record.snapshots[identity]
        return Progress(self.world, "deleteSnapshot", lambda: self._delete(snapshot)).raw

    def _delete(self, snapshot: Snapshot) -> None:
        for medium in list(self.record.attached(snapshot.settings)):
            if len(medium.children) > 1:
                said = f"Hard disk '{medium.location}' has more than one child hard disk"
                raise ComError(E_FAIL, said)
        for child in snapshot.children:
            child.parent = snapshot.parent
        if self.record.current == snapshot.identity:
            self.record.current = snapshot.parent
        del self.record.snapshots[snapshot.identity]
        for medium in list(self.record.attached(snapshot.settings)):
            medium.users.discard(snapshot.identity)
            if medium.children:
                self._merge(medium, medium.children[0])

    def _merge(self, parent: Medium, child: Medium) -> None:
        """The two become one, in the place of either."""
        if self.world.merge_into_child:
            above = parent.parent
            assert above is not None
            above.children.remove(parent)
            above.children.append(child)
            child.parent, parent.children = above, []
            parent.parent = None
            parent.remove()
            return
        parent.users |= child.users
        parent.children = child.children
        for grandchild in child.children:
            grandchild.parent = parent
        child.users, child.children, child.parent = set(), [], None
        for settings in (self.record.settings, self.record.draft or {}, *self._all()):
            for item in settings.get("attachments", []):
                if item["medium"] == child.identity:
                    item["medium"] = parent.identity
        child.remove()

    def _all(self) -> list[dict[str, Any]]:
        return [item.settings for item in self.record.snapshots.values()]

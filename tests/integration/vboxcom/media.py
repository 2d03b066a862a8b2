"""Media and progress objects."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.vboxcom.raw import (
    E_FAIL,
    FILE_ERROR,
    INVALID_OBJECT_STATE,
    OBJECT_IN_USE,
    ComError,
    Node,
    Raw,
    node_of,
)


def contents(path: Path) -> tuple[str, str]:
    """A disk's UUID and its parent's, as its header has them. A file of another kind is a base image."""
    try:
        said = json.loads(path.read_bytes())
        return said["uuid"], said["parent"]
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, str(path))), ""


class Medium(Node):
    interface = "IMedium"

    def __init__(self, world: Any, location: Path, kind: int, form: str, identity: str = "") -> None:
        super().__init__(world)
        self.location = location
        self.kind = kind
        self.form = form
        self.identity = identity or str(uuid.uuid4())
        self.bytes = 1 << 30
        self.parent: Medium | None = None
        self.children: list[Medium] = []
        self.users: set[str] = set()
        """UUIDs of the machines and snapshots it is attached to."""

    def register(self, parent: Medium | None) -> None:
        self.world.media[self.identity] = self
        self.parent = parent
        if parent:
            parent.children.append(self)

    def create(self, parent: Medium | None) -> None:
        if self.location.exists():
            raise ComError(FILE_ERROR, f"Could not create '{self.location}' (VERR_ALREADY_EXISTS)")
        self.location.parent.mkdir(exist_ok=True)
        above = parent.identity if parent else ""
        self.location.write_text(json.dumps({"uuid": self.identity, "parent": above}))
        self.register(parent)

    def _become(self, size: int) -> None:
        self.bytes = size

    def forget(self) -> None:
        """As unused as it must be for that."""
        if self.children:
            said = f"Cannot close medium '{self.location}' because it has {len(self.children)} child media"
            raise ComError(OBJECT_IN_USE, said)
        if self.users:
            raise ComError(INVALID_OBJECT_STATE, f"Medium '{self.location}' is attached to a machine")
        del self.world.media[self.identity]
        if self.parent:
            self.parent.children.remove(self)

    def remove(self) -> None:
        self.forget()
        if not self.location.parent.is_dir():
            raise ComError(FILE_ERROR, f"Could not delete '{self.location}' (VERR_PATH_NOT_FOUND)")
        self.location.unlink(missing_ok=True)

    def get_id(self) -> str:
        return self.identity

    def get_location(self) -> str:
        return str(self.location)

    def get_parent(self) -> Raw | None:
        return self.parent.raw if self.parent else None

    def call_get_children(self) -> list[Raw]:
        return [item.raw for item in self.children]

    def call_create_diff_storage(self, target: Raw, _variants: list[int]) -> Raw:
        medium: Medium = node_of(target)
        return Progress(self.world, "createDiffStorage", lambda: medium.create(self)).raw

    def call_clone_to_base(self, target: Raw, _variants: list[int]) -> Raw:
        medium: Medium = node_of(target)
        return Progress(self.world, "cloneToBase", lambda: medium.create(None)).raw

    def get_logical_size(self) -> int:
        return self.bytes

    def call_resize(self, size: int) -> Raw:
        return Progress(self.world, "resize", lambda: self._become(size)).raw

    def call_delete_storage(self) -> Raw:
        return Progress(self.world, "deleteStorage", self.remove).raw

    def call_close(self) -> None:
        self.forget()


class Progress(Node):
    """Ends at the third look, and does its work then. A failure is told, not raised, as by the real one."""

    interface = "IProgress"

    def __init__(self, world: Any, method: str, action: Callable[[], None]) -> None:
        super().__init__(world)
        self._method = method
        self._action = action
        self._looks = 3
        self._error: ComError | None = None

    def call_wait_for_completion(self, _milliseconds: int) -> None:
        if not self._looks:
            return
        self._looks -= 1
        if self._looks == 0:
            try:
                if self._method in self.world.broken:
                    raise ComError(E_FAIL, self.world.broken[self._method])
                self._action()
            except ComError as error:
                self._error = error

    def get_completed(self) -> bool:
        return self._looks == 0

    def get_result_code(self) -> int:
        return self._error.errno if self._error else 0

    def get_error_info(self) -> Raw | None:
        # VirtualBox does not always explain itself.
        if self._error is None or not self._error.msg:
            return None
        return Node(self.world, {"text": self._error.msg}, "IVirtualBoxErrorInfo").raw

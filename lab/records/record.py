"""A lab's record: what lab remembers of it, in <state>/labs/<name>/lab.json.

The schema is lab.record/2. A record of lab.record/1 is read, too, and carried over.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from lab.model.domain import MAIN, NONE


class Access(BaseModel):
    """A forward of the lab: host port on the loopback, port in the VM."""

    model_config = ConfigDict(extra="forbid")

    host_port: int
    guest_port: int
    fixed: bool = False
    """True when the user's configuration demands this very port."""


class Instance(BaseModel):
    """An emulator of the lab: what was launched, and how that went."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    index: int
    """0 for the main one; an emulator's ports in the VM follow from it."""
    nonce: str = ""
    """Given to its L2 at launch."""
    failed_launches: list[str] = []


class Saved(BaseModel):
    """What belongs to the memory in a snapshot."""

    model_config = ConfigDict(extra="forbid")

    boot_id: str = ""
    instances: dict[str, Instance] = {}


class Record(BaseModel):
    """What lab remembers of one lab. Written atomically at each change."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["lab.record/2"] = "lab.record/2"
    name: str
    uuid: str
    created: str
    engine: str
    acceleration: Literal["auto", "kvm", "tcg"] = "auto"
    emulator_why: str = ""
    image: str = ""
    """The guest image's id; empty until it is chosen."""
    image_why: str = ""
    cpus: int
    memory_mib: int
    disk_gib: int
    paravirt: Literal["kvm", "none", "default", "unknown"]
    """`unknown` for a VM that lab did not make, whose hypervisor names another one or none."""
    nested: bool
    docker_package: Literal["docker.io", "docker-ce"] = "docker.io"
    forwards: dict[str, Access] = {}
    boot_id: str = ""
    """L1's boot id when the ladder was last climbed."""
    verdict: str = ""
    """The verdict of that climb."""
    ran: str = ""
    """What ran L1's instructions then."""
    instances: dict[str, Instance] = {}
    """The emulators by name, the main one first; a lab without one has no `main`."""
    saved: dict[str, Saved] = {}
    """Snapshot to what belongs to its memory."""

    @model_validator(mode="before")
    @classmethod
    def _carry_over(cls, raw: Any) -> Any:
        first = isinstance(raw, Mapping) and raw.get("schema_") == "lab.record/1"
        return _FirstRecord.model_validate(raw).carried_over() if first else raw

    @property
    def emulator(self) -> str:
        """The kind of the main emulator, or none."""
        return self.instances[MAIN].kind if MAIN in self.instances else NONE


class _FirstSaved(BaseModel):
    nonce: str = ""
    boot_id: str = ""
    instances: dict[str, Instance] = {}


class _FirstRecord(BaseModel):
    """A record of lab.record/1, in which the main emulator was apart from those beside it."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal["lab.record/1"]
    emulator: str
    nonce: str = ""
    failed_launches: list[str] = []
    instances: dict[str, Instance] = {}
    saved: dict[str, _FirstSaved] = {}

    def carried_over(self) -> dict[str, Any]:
        """The same as the fields of a Record."""
        saved = {
            name: Saved(boot_id=then.boot_id, instances=self._with_main(then.instances, nonce=then.nonce))
            for name, then in self.saved.items()
        }
        launched = {"nonce": self.nonce, "failed_launches": self.failed_launches}
        instances = self._with_main(self.instances, **launched)
        return (self.model_extra or {}) | {"instances": instances, "saved": saved}

    def _with_main(self, beside: Mapping[str, Instance], **launched: Any) -> dict[str, Instance]:
        main = Instance(kind=self.emulator, index=0, **launched)
        return {**({} if self.emulator == NONE else {MAIN: main}), **beside}


def new_record(name: str, *, emulator: str, **fields: Any) -> Record:
    """A record with a fresh UUID marker, of a lab whose main emulator is of the kind `emulator`, or none."""
    main = Instance(kind=emulator, index=0)
    return Record(
        instances={} if emulator == NONE else {MAIN: main},
        name=name,
        uuid=str(uuid.uuid4()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **fields,
    )

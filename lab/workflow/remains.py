"""What is left of a lab whose record cannot be read: enough to end its VM, or the reason why not."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from lab import emulators, engines
from lab.core import system
from lab.core.errors import InconclusiveError
from lab.core.files import read_object
from lab.engines.kind import Trace
from lab.records.labs import Lab
from lab.records.record import Record, new_record


def record(lab: Lab, read: Record | None = None) -> Record | None:
    """A record to destroy the lab by: `read`, where that could be read; None when no engine made anything.

    UUID and engine are those of the record as far as it can be read, of the journal, or of the engine's own
    files and processes; the rest is as it was written, where that is known. Raises InconclusiveError,
    saying what to look at, when an engine made something and these do not tell one machine by one engine.
    """
    raws = [read.model_dump()] if read else _written(lab)
    made = [*_journalled(lab), *engines.traces(lab.vm_folder)]
    signs = [
        Trace(str(raw.get("engine", "")), str(raw.get("uuid", "")), str(lab.record_file)) for raw in raws
    ]
    uuids = {sign.uuid for sign in (*signs, *made) if _is_uuid(sign.uuid)}
    kinds = {kind.name: kind for kind in engines.kinds()}
    names = {sign.engine for sign in (*signs, *made) if sign.engine in kinds}
    if read is not None and uuids <= {read.uuid}:
        return read
    if len(names) == 1 and (len(uuids) == 1 or (not uuids and all(kinds[name].by_folder for name in names))):
        raw = raws[0] if raws else {}
        return _record(lab, raw, engine=names.pop(), uuid=uuids.pop() if uuids else str(uuid.uuid4()))
    if not made and engines.is_empty(lab.vm_folder):
        return None
    folder = shlex.quote(str(lab.folder))
    raise InconclusiveError(
        f"lab {lab.name} has a VM, or had one, and which one cannot be told: nothing was removed",
        hint=f"look at what is below, and for its VM: `ps -ef | grep {folder}`, `VBoxManage list vms`, "
        f"`vagrant global-status`; end that, then `rm -r {folder}`",
        evidence=[lab.record_file, lab.journal.path, lab.vm_folder],
        tail="\n".join(
            f"{sign.sign}: {sign.engine or 'no engine'}, {sign.uuid or 'no uuid'}" for sign in (*signs, *made)
        ),
    )


def _written(lab: Lab) -> list[Mapping[str, Any]]:
    """What is left of the record: of its file, else of what the journal has of it; any field may be missing
    in it, or of another kind than it should be."""
    try:
        with system.explained(lab.folder):
            raw = read_object(lab.record_file)
            if _is_uuid(str(raw.get("uuid"))):
                return [raw]
    except ValueError:
        pass
    entries = lab.journal.entries("lab")
    # One that was intended and never done is of a creation cut short, before anything else was made.
    return [
        {**(known if isinstance(known := entry.facts.get("record"), dict) else {}), "uuid": entry.key}
        for entry in ([entry for entry in entries if entry.done] or entries)
    ]


def _journalled(lab: Lab) -> list[Trace]:
    made_by = {kind.journal: kind.name for kind in engines.kinds() if kind.journal}
    return [
        Trace(made_by[entry.kind], entry.key, str(lab.journal.path))
        for entry in lab.journal.entries()
        if entry.kind in made_by and _is_uuid(entry.key)
    ]


def _record(lab: Lab, raw: Mapping[str, Any], **known: str) -> Record:
    """The record with what is usable of `raw`; what is not has a value that destroying makes no use of."""
    blank = new_record(
        lab.name,
        engine=known["engine"],
        emulator=emulators.NONE,
        cpus=1,
        memory_mib=1,
        disk_gib=1,
        paravirt="unknown",
        nested=False,
    ).model_dump()
    fields = {name: raw[name] for name in Record.model_fields if name in raw and name != "schema_"}
    fields |= {"name": lab.name, "image": raw.get("image") or "unknown"}
    try:
        return Record.model_validate(blank | fields | known)
    except ValidationError as error:
        wrong: Iterable[Any] = {item["loc"][0] for item in error.errors()}
        return Record.model_validate(blank | {k: v for k, v in fields.items() if k not in wrong} | known)


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False

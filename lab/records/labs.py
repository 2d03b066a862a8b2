"""The labs of this user: one folder each, with its record, journal, keys and lock.

<state>/labs/<name>/lab.json        the record (lab.records.record)
                    journal.jsonl   what was created (lab.core.journal)
                    lock            held by the command at work
                    keys/ vm/ adb/  the lab's keys, the engine's and adb's own folders
<state>/evidence/<name>/<run>/      evidence, which outlives the lab
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.config.names import check_name
from lab.core import lock, system
from lab.core.errors import LabError, UsageError
from lab.core.files import private_folder, read_json, sync_folder, write_json
from lab.core.journal import Journal
from lab.core.similar import nearest
from lab.records.record import Instance, Record

_OF_THE_LOCK = {"lock", "lock.holder"}


class Lab:
    """A lab's folder and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.journal = Journal(folder / "journal.jsonl")
        self._changing = threading.Lock()

    @property
    def record_file(self) -> Path:
        return self.folder / "lab.json"

    @property
    def vm_folder(self) -> Path:
        return self.folder / "vm"

    @property
    def adb_folder(self) -> Path:
        return self.folder / "adb"

    @property
    def lock_file(self) -> Path:
        return self.folder / "lock"

    def read(self) -> Record | None:
        """The record, or None for a lab whose creation was cut short. Raises LabError where it is unreadable.

        One that was written, by the journal's word, and is missing is unreadable, too: its VM may run.
        """
        with system.explained(self.folder):
            try:
                if self.record_file.exists():
                    return Record.model_validate(read_json(self.record_file))
                if not any(entry.done for entry in self.journal.entries("lab")):
                    return None
                why = f"{self.record_file} is gone, and the journal says that it was written"
            except ValueError as error:  # not JSON, or not a record
                why = str(error)
        raise LabError(
            f"the record of lab {self.name} cannot be read",
            evidence=[self.record_file],
            tail=why,
            hint=f"use the newer lab, if one wrote it; `invoke lab.destroy --name {self.name}` removes all",
        )

    def record(self) -> Record:
        """The record. Raises UsageError for a lab whose creation was cut short, LabError as `read` does."""
        record = self.read()
        if record is None:
            raise UsageError(
                f"lab {self.name} was never finished being created",
                hint=f"`invoke lab.up --name {self.name}` goes on with it, "
                f"`invoke lab.destroy --name {self.name}` removes it",
            )
        return record

    def write(self, record: Record) -> None:
        """Replace the record on disk, wholly or not at all."""
        write_json(self.record_file, record.model_dump())

    def create(self, record: Record) -> None:
        """Write the first record, and into the journal what is needed to destroy the lab without it."""
        self.journal.intend("lab", record.uuid, name=self.name, record=record.model_dump())
        self.write(record)
        self.journal.done("lab", record.uuid)

    def change(self, **fields: Any) -> Record:
        """Write the record with some fields replaced; steps that run side by side may do so."""
        with self._changing:
            record = Record.model_validate(self.record().model_dump() | fields)
            self.write(record)
        return record

    def change_instance(self, name: str, **fields: Any) -> Record:
        """Write the record with some fields of one of its `instances` replaced; a new one is added."""
        with self._changing:
            record = self.record()
            known = record.instances.get(name)
            instance = Instance.model_validate((known.model_dump() if known else {}) | fields)
            record.instances[name] = instance
            self.write(record)
        return record

    def forget_instance(self, name: str) -> Record:
        """Write the record without one of its `instances`."""
        with self._changing:
            record = self.record()
            record.instances.pop(name, None)
            self.write(record)
        return record

    @contextlib.contextmanager
    def hold(self, verb: str) -> Iterator[None]:
        """Be the one command that works on this lab, or raise BusyError.

        UsageError when it was removed meanwhile: no folder is made for it anew.
        """
        with contextlib.ExitStack() as stack:
            with system.explained(self.folder):
                try:
                    held = lock.hold(self.lock_file, verb, f"lab {self.name}", make=False)
                    stack.enter_context(held)
                except FileNotFoundError as error:
                    raise _no_lab(self.name, "another command removed it just now") from error
            yield

    def remove(self) -> None:
        """Remove the folder, the lock with it. The caller holds the lock."""
        # Renamed first, so that a kill in between leaves nothing that looks like a lab.
        gone = self.folder.with_name(f".{self.name}.{uuid.uuid4().hex}.gone")
        self.folder.rename(gone)
        sync_folder(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)  # another command may be sweeping it away as well
        if gone.exists():
            shutil.rmtree(gone)


class Store:
    """All labs of one state folder, and where their evidence is."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.labs_folder = state / "labs"
        self.evidence_folder = state / "evidence"

    def labs(self) -> list[Lab]:
        """Every lab, half-made ones too, by name. Sweeps what a killed `remove` left."""
        if not self.labs_folder.exists():
            return []
        for leftover in self.labs_folder.glob(".*.gone"):
            shutil.rmtree(leftover, ignore_errors=True)
        paths = sorted(path for path in self.labs_folder.iterdir() if not path.name.startswith("."))
        return [Lab(path) for path in paths if path.is_dir()]

    @contextlib.contextmanager
    def making(self, name: str, verb: str) -> Iterator[Lab]:
        """The lab of that name, held for `verb`: made when missing; gone again if nothing was written."""
        while True:
            lab = self.place(name)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lab.hold(verb))
                except UsageError:  # removed between the two: place it anew
                    continue
                try:
                    yield lab
                finally:
                    if lab.folder.is_dir() and {path.name for path in lab.folder.iterdir()} <= _OF_THE_LOCK:
                        lab.remove()
            return

    def find(self, name: str) -> Lab | None:
        """The lab of that name; None when there is no folder of it."""
        folder = self.labs_folder / name
        return Lab(folder) if folder.is_dir() else None

    def get(self, name: str) -> Lab:
        """The lab of that name; UsageError with the nearest one when there is none."""
        check_name(name)
        if lab := self.find(name):
            return lab
        near = nearest(name, [each.name for each in self.labs()])
        hint = f"did you mean {near}?" if near else "`invoke lab.up` makes one, `invoke lab.list` shows all"
        raise _no_lab(name, hint)

    def place(self, name: str) -> Lab:
        """A lab's folder, made when missing."""
        private_folder(self.labs_folder)
        return Lab(private_folder(self.labs_folder / name))

    def images_in_use(self) -> dict[str, list[str]]:
        """Image id to the names of the labs that stand on it."""
        used: dict[str, list[str]] = {}
        for lab in self.labs():
            with contextlib.suppress(LabError):
                record = lab.read()
                if record and record.image:
                    used.setdefault(record.image, []).append(lab.name)
        return used


def _no_lab(name: str, hint: str) -> UsageError:
    return UsageError(f"there is no lab {name}", hint=hint)

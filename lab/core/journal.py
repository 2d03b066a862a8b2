"""The journal of one lab: what is about to be created is written here before it is created.

Each line is one JSON object: `{"at", "verb": "intend"|"done"|"gone", "kind", "key", …}`.
A reader that finds an intention without its end must look whether the thing exists.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core import system


@dataclass
class Entry:
    """One created (or half-created) thing: `kind` such as vm, process, file, port, container."""

    kind: str
    key: str
    done: bool
    facts: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The journal in the file `path`. What cannot be written raises OSError: then nothing is to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def intend(self, kind: str, key: str, **facts: Any) -> None:
        """Say what is about to be created."""
        self._append("intend", kind, key, facts)

    def done(self, kind: str, key: str, **facts: Any) -> None:
        """Say that it now exists."""
        self._append("done", kind, key, facts)

    def gone(self, kind: str, key: str) -> None:
        """Say that it was removed. A full disk is no error: a reader looks whether the thing exists."""
        with contextlib.suppress(OSError):
            self._append("gone", kind, key, {})

    def entries(self, kind: str | None = None) -> list[Entry]:
        """What exists or may exist, oldest first. A torn line, or one of no journal, is ignored."""
        alive: dict[tuple[str, str], Entry] = {}
        for line in self._lines():
            try:
                record = json.loads(line)
                verb, name, key = (str(record.pop(word)) for word in ("verb", "kind", "key"))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue
            record.pop("at", None)
            if verb == "gone":
                alive.pop((name, key), None)
            else:
                entry = alive.setdefault((name, key), Entry(name, key, False))
                entry.done = verb == "done"
                entry.facts |= record
        return [entry for entry in alive.values() if kind in (None, entry.kind)]

    def _lines(self) -> list[str]:
        try:
            with system.explained(self.path.parent):
                return self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
        except FileNotFoundError:
            return []

    def _append(self, verb: str, kind: str, key: str, facts: dict[str, Any]) -> None:
        record = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "verb": verb,
            "kind": kind,
            "key": key,
        }
        line = json.dumps(record | facts, default=str) + "\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line  # close the line a crash tore
            content = line.encode()
            if os.write(descriptor, content) < len(content):  # what fits is written, and no error raised
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

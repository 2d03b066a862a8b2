"""The file: SQLite with a write-ahead log, migrated step by step, moved aside when it is damaged."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lab.core import lock, system
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError
from lab.core.files import open_private, private_folder

_BUSY_SECONDS = 10.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_ROOM_BYTES = 1 << 20
"""Less room than SQLite needs for its files: an I/O error is then one of a full disk."""
_FILES = ("", "-wal", "-shm")
"""What SQLite keeps a database in, by what follows its name."""

FIRST = """
CREATE TABLE cells (
    id INTEGER PRIMARY KEY,
    system TEXT NOT NULL, os TEXT NOT NULL, kernel TEXT NOT NULL, cpu TEXT NOT NULL,
    engine TEXT NOT NULL, engine_version TEXT NOT NULL, acceleration TEXT NOT NULL,
    nesting TEXT NOT NULL, emulated INTEGER NOT NULL, paravirt TEXT NOT NULL, image TEXT NOT NULL,
    emulator TEXT NOT NULL, emulator_image TEXT NOT NULL, android INTEGER NOT NULL,
    UNIQUE (system, os, kernel, cpu, engine, engine_version, acceleration, nesting, emulated, paravirt,
            image, emulator, emulator_image, android)
);
CREATE TABLE nights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('running', 'ended')),
    started TEXT NOT NULL, ended TEXT, seconds REAL,
    planned INTEGER NOT NULL,
    verdict TEXT NOT NULL DEFAULT '', claim TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    cell INTEGER REFERENCES cells,
    clock_jump REAL NOT NULL DEFAULT 0,
    evidence TEXT NOT NULL, report TEXT NOT NULL DEFAULT '',
    boot_id TEXT NOT NULL, lab_version TEXT NOT NULL,
    CHECK ((state = 'running') = (verdict = ''))
);
CREATE INDEX nights_of_cell ON nights (cell, id);
CREATE TABLE claims (
    night INTEGER NOT NULL REFERENCES nights ON DELETE CASCADE,
    claim TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, counts TEXT NOT NULL,
    PRIMARY KEY (night, claim)
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    night INTEGER NOT NULL REFERENCES nights ON DELETE CASCADE,
    number INTEGER NOT NULL, kind TEXT NOT NULL,
    started TEXT NOT NULL, seconds REAL NOT NULL,
    verdict TEXT NOT NULL, claim TEXT NOT NULL, reason TEXT NOT NULL,
    error TEXT NOT NULL, evidence TEXT NOT NULL,
    cell INTEGER REFERENCES cells,
    UNIQUE (night, number)
);
CREATE TABLE run_claims (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    claim TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (run, claim)
);
CREATE TABLE rungs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    rung TEXT NOT NULL, status TEXT NOT NULL, inconclusive INTEGER NOT NULL,
    seconds REAL NOT NULL, observed TEXT NOT NULL,
    PRIMARY KEY (run, rung)
);
CREATE TABLE figures (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    name TEXT NOT NULL, unit TEXT NOT NULL, value REAL NOT NULL
);
CREATE INDEX figures_of_run ON figures (run);
CREATE TABLE findings (
    night INTEGER NOT NULL REFERENCES nights ON DELETE CASCADE,
    key TEXT NOT NULL, text TEXT NOT NULL, worse INTEGER NOT NULL
);
CREATE TABLE notes (
    night INTEGER NOT NULL REFERENCES nights ON DELETE CASCADE,
    text TEXT NOT NULL
);
CREATE TABLE deliveries (
    night INTEGER NOT NULL REFERENCES nights ON DELETE CASCADE,
    channel TEXT NOT NULL, delivered INTEGER NOT NULL, said TEXT NOT NULL
);
CREATE TABLE events (at TEXT NOT NULL, text TEXT NOT NULL);
"""

CUT = "ALTER TABLE runs ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;"

UNTOLD = """
ALTER TABLE nights ADD COLUMN untold INTEGER NOT NULL DEFAULT 1;
UPDATE nights SET untold = 0 WHERE state = 'ended' AND id <= (
    SELECT coalesce(max(id), 0) FROM nights
    WHERE report != '' OR id IN (SELECT night FROM deliveries));
"""
"""Of the nights before it, those are untold that ended after the last one with a report or a delivery."""

PC = """
CREATE TABLE cells_with_pc (
    id INTEGER PRIMARY KEY,
    system TEXT NOT NULL, os TEXT NOT NULL, kernel TEXT NOT NULL, cpu TEXT NOT NULL,
    pc TEXT NOT NULL DEFAULT '',
    engine TEXT NOT NULL, engine_version TEXT NOT NULL, acceleration TEXT NOT NULL,
    nesting TEXT NOT NULL, emulated INTEGER NOT NULL, paravirt TEXT NOT NULL, image TEXT NOT NULL,
    emulator TEXT NOT NULL, emulator_image TEXT NOT NULL, android INTEGER NOT NULL,
    UNIQUE (system, os, kernel, cpu, pc, engine, engine_version, acceleration, nesting, emulated, paravirt,
            image, emulator, emulator_image, android)
);
INSERT INTO cells_with_pc
    SELECT id, system, os, kernel, cpu, '', engine, engine_version, acceleration, nesting, emulated, paravirt,
           image, emulator, emulator_image, android FROM cells;
DROP TABLE cells;
ALTER TABLE cells_with_pc RENAME TO cells;
"""
"""The emulated PC that a host is, as part of its cell; those of before were none.

Nor are those of an earlier lab that still writes to the file, as in a night that runs while lab is updated.
"""

KEYED = """
ALTER TABLE nights ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE nights ADD COLUMN host TEXT NOT NULL DEFAULT '';
CREATE INDEX nights_of_key ON nights (key) WHERE key != '';
"""
"""What a night was called for (DATE/CELL), and the id of the host it ran on (lab.host.identity).

Those of before have neither: they ran on the host whose history this is.
"""

MIGRATIONS: tuple[str, ...] = (FIRST, CUT, UNTOLD, PC, KEYED)
"""Migration n leads from version n to n + 1; `user_version` says which the file has. Append, never change."""


class HistoryError(LabError):
    """The history could not be read or written."""


class HistoryBlockedError(HistoryError, BlockedError):
    """What the history needs is missing: room on the disk, or access to its file."""


def open_database(path: Path, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """The database at `path`, made or brought up to date.

    A damaged one is moved aside beside it, and the new one says so in its table `events`: nothing is
    lost silently. Raises HistoryError, BusyError.
    """
    with as_history_error(path):
        if not path.parent.exists():
            private_folder(path.parent)
    # Two commands that find the same damage must not both move the file.
    alone = lock.when_free(lock.beside(path), "opening the history", deadline=Deadline.after(_BUSY_SECONDS))
    with as_history_error(path), alone:
        for ending in _FILES:  # SQLite makes its own as open as the database is
            if not ending or path.with_name(path.name + ending).exists():
                open_private(path.with_name(path.name + ending), "ab").close()
        try:
            return _ready(path, migrations)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:  # such as a full disk, or a lock
                raise
            damage = error
        kept = _move_aside(path)
        connection = _ready(path, migrations)
        event(connection, f"the history was damaged ({damage}) and begins anew; it is kept in {kept}")
        return connection


def event(connection: sqlite3.Connection, text: str) -> None:
    """Remember something about the history itself."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute("INSERT INTO events VALUES (?, ?)", (now, text))


@contextlib.contextmanager
def as_history_error(path: Path) -> Iterator[None]:
    """Errors of SQLite and the system leave this block as HistoryError, with what mends them."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        cause = error if isinstance(error, OSError) else _disk_full(error, path)
        if cause and (plain := system.explain(cause, (path.parent,))):
            raise HistoryBlockedError(plain.what, hint=plain.hint, evidence=[path]) from error
        raise HistoryError(
            f"the history could not be used: {error}",
            evidence=[path],
            hint="nothing in the file was changed by this; `nightly.run` tries it again",
        ) from error


def _disk_full(error: sqlite3.Error, path: Path) -> OSError | None:
    """The system's error for a full disk, where that is what SQLite met."""
    code = _code(error)
    crowded = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < _ROOM_BYTES
    if code == sqlite3.SQLITE_FULL or crowded:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return None


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _ready(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """A connection to a sound database that is up to date. DatabaseError when it is damaged."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = OFF"):
            connection.execute(f"PRAGMA {setting}")
        answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if answer != "ok":
            damage = sqlite3.DatabaseError(answer.splitlines()[-1])
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        _migrate(connection, migrations, path)
        connection.execute(
            "PRAGMA foreign_keys = ON"
        )  # a table that others refer to can be made anew until now
    except BaseException:
        connection.close()
        raise
    return connection


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    kept = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    for ending in _FILES:
        part = path.with_name(path.name + ending)
        if part.exists():
            part.replace(kept.with_name(kept.name + ending))
    return kept


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise HistoryError(
            f"the history was written by a newer lab (its version is {version}, this lab knows "
            f"{len(migrations)})",
            evidence=[path],
            hint="update lab, or let LAB_STATE_DIR name another folder",
        )
    for number in range(version, len(migrations)):
        script = f"BEGIN IMMEDIATE; {migrations[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        try:
            connection.executescript(script)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

"""Rows of the database, and the objects of lab.history.model they hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from lab.core import redact
from lab.history.model import CELL, Claimed, ClimbRecord, Delivery, Figure, Night, NightFinding, RungRecord

# Every name put into a statement below is one of our own tables and columns; values never are.


_SENTENCES = ("reason", "error", "observed", "said", "text")


def insert(connection: sqlite3.Connection, table: str, **columns: Any) -> int:
    """Add a row; returns its id."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    return connection.execute(statement, _redacted(columns)).lastrowid or 0


def insert_run(connection: sqlite3.Connection, night: int, run: ClimbRecord) -> None:
    """Add a run to the night of that id, whole."""
    own = vars(run) | {"night": night, "cell": cell_id(connection, run.cell)}
    lists = {name: own.pop(name) for name in ("claims", "rungs", "figures")}
    key = insert(connection, "runs", **own)
    for claimed in lists["claims"]:
        members = {"claim": claimed.claim, "verdict": claimed.verdict, "reason": claimed.reason}
        insert(connection, "run_claims", run=key, **members)
    for table in ("rungs", "figures"):
        for record in lists[table]:
            insert(connection, table, run=key, **vars(record))


def insert_claims(connection: sqlite3.Connection, night: int, claims: Sequence[Claimed]) -> None:
    """Add a night's verdicts to the night of that id."""
    for claimed in claims:
        counts = json.dumps(dict(claimed.counts))
        insert(connection, "claims", night=night, **vars(claimed) | {"counts": counts})


def insert_whole(connection: sqlite3.Connection, night: Night) -> int:
    """Add a night that ended elsewhere, with all that belongs to it; returns its id here."""
    own = dict(vars(night))
    for name in ("id", "cell_id", "claims", "runs", "findings", "notes", "deliveries"):
        del own[name]
    key = insert(connection, "nights", **own | {"cell": cell_id(connection, night.cell)})
    insert_claims(connection, key, night.claims)
    for run in night.runs:
        insert_run(connection, key, run)
    for table, entries in (("findings", night.findings), ("deliveries", night.deliveries)):
        for entry in entries:
            insert(connection, table, night=key, **vars(entry))
    for text in night.notes:
        insert(connection, "notes", night=key, text=text)
    return key


def update_night(connection: sqlite3.Connection, key: int, **columns: Any) -> None:
    """Change these columns of the night of that id."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    connection.execute(f"UPDATE nights SET {changes} WHERE id = ?", [*_redacted(columns), key])  # noqa: S608


def _redacted(columns: Mapping[str, Any]) -> list[Any]:
    """The values, without secrets in those that are sentences."""
    return [redact.clean(value) if name in _SENTENCES else value for name, value in columns.items()]


def cell_id(connection: sqlite3.Connection, cell: Mapping[str, Any] | None) -> int | None:
    """The id of a cell's row, made when it is new."""
    if cell is None:
        return None
    values = [cell[name] for name in CELL]
    names, marks = ", ".join(CELL), ", ".join("?" * len(CELL))
    connection.execute(f"INSERT OR IGNORE INTO cells ({names}) VALUES ({marks})", values)  # noqa: S608
    where = " AND ".join(f"{name} = ?" for name in CELL)
    row = connection.execute(f"SELECT id FROM cells WHERE {where}", values).fetchone()  # noqa: S608
    return int(row["id"])


def nights(connection: sqlite3.Connection, clause: str, values: tuple[Any, ...]) -> list[Night]:
    """The nights that a WHERE, ORDER BY and LIMIT choose, with all that belongs to them."""
    rows = connection.execute(f"SELECT * FROM nights {clause}", values).fetchall()  # noqa: S608
    return [_night(connection, row) for row in rows]


def _night(connection: sqlite3.Connection, row: sqlite3.Row) -> Night:
    def of(table: str) -> list[dict[str, Any]]:
        return _children(connection, table, "night", row["id"])

    return Night(
        **_plain(row, "cell") | {"untold": bool(row["untold"])},
        cell_id=row["cell"],
        cell=_columns(connection, row["cell"]),
        claims=[Claimed(**child | {"counts": json.loads(child["counts"])}) for child in of("claims")],
        runs=[_run(connection, child) for child in of("runs")],
        findings=[NightFinding(**child | {"worse": bool(child["worse"])}) for child in of("findings")],
        notes=[child["text"] for child in of("notes")],
        deliveries=[
            Delivery(**child | {"delivered": bool(child["delivered"])}) for child in of("deliveries")
        ],
    )


def _run(connection: sqlite3.Connection, row: dict[str, Any]) -> ClimbRecord:
    key, cell = row.pop("id"), row.pop("cell")

    def of(table: str) -> list[dict[str, Any]]:
        return _children(connection, table, "run", key)

    return ClimbRecord(
        **row | {"cut": bool(row["cut"])},
        cell=_columns(connection, cell),
        claims=[Claimed(**child) for child in of("run_claims")],
        rungs=[RungRecord(**child | {"inconclusive": bool(child["inconclusive"])}) for child in of("rungs")],
        figures=[Figure(**child) for child in of("figures")],
    )


def _columns(connection: sqlite3.Connection, cell: int | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    return _plain(connection.execute("SELECT * FROM cells WHERE id = ?", (cell,)).fetchone(), "id")


def _children(connection: sqlite3.Connection, table: str, column: str, key: int) -> list[dict[str, Any]]:
    """The rows of `table` that belong to one, in the order they were written, without the reference."""
    rows = connection.execute(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY rowid", (key,))  # noqa: S608
    return [_plain(row, column) for row in rows.fetchall()]


def _plain(row: sqlite3.Row, but: str) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() if name != but}  # noqa: SIM118 - a Row iterates values

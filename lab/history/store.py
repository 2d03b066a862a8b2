"""Reading and writing nights."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from lab.core.errors import LabError
from lab.history import retention, rows
from lab.history.database import HistoryError, as_history_error, open_database
from lab.history.model import ENDED, RUNNING, ClimbRecord, Delivery, Ending, Night, NightFinding
from lab.model.domain import Verdict


class NotRunningError(LabError):
    """A night has ended already."""


class History:
    """The nights in one file. Opened for one command, from one thread; closed by `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_database(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- writing -------------------------------------------------------------------------------

    def begin(
        self, *, planned: int, evidence: str, boot_id: str, lab_version: str, key: str = "", host: str = ""
    ) -> int:
        """Write down that a night begins, before anything of it does; returns its id.

        `boot_id` is the host's: a night of another boot cannot still be running. `key` and `host` are as of
        Night.
        """
        with self._writing() as connection:
            return rows.insert(
                connection,
                "nights",
                uuid=str(uuid.uuid4()),
                state=RUNNING,
                started=_now(),
                planned=planned,
                evidence=evidence,
                boot_id=boot_id,
                lab_version=lab_version,
                key=key,
                host=host,
            )

    def add(self, night: int, run: ClimbRecord) -> None:
        """Write down one run, whole."""
        with self._writing() as connection:
            rows.insert_run(connection, night, run)

    def end(self, night: int, ending: Ending) -> None:
        """Close a night that runs. One that has ended stays as it is: NotRunningError."""
        with self._writing() as connection:
            running = connection.execute("SELECT 1 FROM nights WHERE id = ? AND state = ?", (night, RUNNING))
            if running.fetchone() is None:
                raise NotRunningError(f"night {night} does not run: it cannot be ended")
            own = {name: value for name, value in vars(ending).items() if name not in ("claims", "notes")}
            cell = rows.cell_id(connection, ending.cell)
            rows.update_night(connection, night, **own | {"state": ENDED, "ended": _now(), "cell": cell})
            rows.insert_claims(connection, night, ending.claims)
            for text in ending.notes:
                rows.insert(connection, "notes", night=night, text=text)

    def take(self, night: Night) -> Night:
        """Write down a night that ended on another host; one that is on record, by its uuid, stays as it is.

        Returns what is on record.
        """
        with self._writing() as connection:
            known = connection.execute("SELECT id FROM nights WHERE uuid = ?", (night.uuid,)).fetchone()
            key = known["id"] if known else rows.insert_whole(connection, night)
        return self.night(key)

    def close_dead(self, dead: Sequence[Night], reason: str, boot_id: str) -> list[Night]:
        """End these nights, known not to run any more, as inconclusive; returns what they became.

        `reason` is what is known of their end, `boot_id` the host's now. One that another command
        ended meanwhile stays as it is.
        """
        closed = []
        for night in dead:
            restarted = bool(night.boot_id and boot_id and night.boot_id != boot_id)
            why = "the host was restarted under it" if restarted else reason
            with contextlib.suppress(NotRunningError):
                self.end(
                    night.id,
                    Ending(
                        verdict=Verdict.INCONCLUSIVE.value,
                        claim=next((run.claim for run in night.runs if run.claim), "")
                        or self.last_claim(night.id),
                        reason=f"cut short after {len(night.runs)} of {night.planned} runs: {why}",
                        seconds=sum(run.seconds for run in night.runs),
                        cell=next((run.cell for run in night.runs if run.cell), None),
                    ),
                )
                closed.append(self.night(night.id))
        return closed

    def note(self, night: int, text: str) -> None:
        """Add something worth knowing to a night."""
        with self._writing() as connection:
            rows.insert(connection, "notes", night=night, text=text)

    def set_findings(self, night: int, findings: Sequence[NightFinding]) -> None:
        """Write down what differs from the nights before, in the place of what was written of it."""
        with self._writing() as connection:
            connection.execute("DELETE FROM findings WHERE night = ?", (night,))
            for finding in findings:
                rows.insert(connection, "findings", night=night, **vars(finding))

    def add_delivery(self, night: int, delivery: Delivery) -> None:
        """Write down that somebody was told, or could not be."""
        with self._writing() as connection:
            rows.insert(connection, "deliveries", night=night, **vars(delivery))

    def set_report(self, night: int, report: str) -> None:
        """Write down where the night's report is."""
        with self._writing() as connection:
            rows.update_night(connection, night, report=report)

    def mark_told(self, night: int) -> None:
        """Write down that a night needs telling no more. Each night is untold from its beginning on."""
        with self._writing() as connection:
            rows.update_night(connection, night, untold=0)

    def prune(self, keep_days: int, keep_nights: int) -> list[Night]:
        """Forget the nights that the rule no longer keeps (lab.history.retention); returns them."""
        ages = self._connection.execute(
            "SELECT id, started, coalesce(cell, '') || '@' || host, state FROM nights"
        )
        nights = [retention.NightAge(*age) for age in ages]
        dropped = [self.night(key) for key in sorted(retention.dropped(nights, keep_days, keep_nights))]
        with self._writing() as connection:
            for night in dropped:
                connection.execute("DELETE FROM nights WHERE id = ?", (night.id,))
        return dropped

    # --- reading -------------------------------------------------------------------------------

    def night(self, key: int) -> Night:
        nights = self._read("WHERE nights.id = ?", (key,))
        if not nights:
            raise HistoryError(f"there is no night {key}", evidence=[self.path])
        return nights[0]

    def nights(self, limit: int = -1) -> list[Night]:
        """The newest nights, newest first; all of them when `limit` is negative."""
        return self._read("ORDER BY id DESC LIMIT ?", (limit,))

    def running(self) -> list[Night]:
        """Nights marked as running, whether or not their command still lives."""
        return self._read("WHERE state = ?", (RUNNING,))

    def keyed(self, key: str, host: str) -> Night | None:
        """The newest night of that key that ran on the host of that id; None where there is none."""
        nights = self._read("WHERE key = ? AND host IN (?, '') ORDER BY id DESC LIMIT 1", (key, host))
        return next(iter(nights), None)

    def by_uuid(self, uuid: str) -> Night | None:
        """The night of that uuid; None where there is none."""
        return next(iter(self._read("WHERE uuid = ?", (uuid,))), None)

    def since(self, day: str, host: str) -> list[Night]:
        """The ended nights with a key of that day (ISO 8601) or a later one, of one host, oldest first."""
        clause = "WHERE key >= ? AND key != '' AND state = ? AND host = ? ORDER BY id"
        return self._read(clause, (day, ENDED, host))

    def untold(self, before: int) -> list[Night]:
        """The ended nights before the one of that id of which somebody is still to be told, oldest first."""
        return self._read("WHERE untold AND state = ? AND id < ? ORDER BY id", (ENDED, before))

    def earlier(self, night: Night, limit: int) -> list[Night]:
        """The last `limit` nights of its host that ended before this one, newest first."""
        return self._before_on_its_host(night, limit)

    def last_before(self, night: Night) -> Night | None:
        """The newest ended night of its host before this one, of whatever cell."""
        return next(iter(self.earlier(night, 1)), None)

    def before(self, night: Night, limit: int) -> list[Night]:
        """The last `limit` nights of the same host and cell that ended before this one, newest first."""
        return self._before_on_its_host(night, limit, "cell = ?", night.cell_id)

    def alike(self, night: Night, limit: int) -> list[Night]:
        """The last `limit` nights of the same host and engine with verdicts before this one, newest first.

        Nights of that host without a cell are among them. A night without a cell counts as of the engine of
        the last night before it that has a cell.
        """
        known = [night] if night.cell else self._before_on_its_host(night, 1, "cell IS NOT NULL")
        cell = known[0].cell if known else None
        if cell is None:
            return []
        return self._before_on_its_host(
            night,
            limit,
            "EXISTS (SELECT 1 FROM claims WHERE claims.night = nights.id) AND (cell IS NULL OR cell IN"
            " (SELECT id FROM cells WHERE system = ? AND cpu = ? AND pc = ? AND engine = ?))",
            *(cell[name] for name in ("system", "cpu", "pc", "engine")),
        )

    def last_claim(self, before: int = sys.maxsize) -> str:
        """What the newest ended night (before the one of that id) that names a claim was about; or empty."""
        return next((night.claim for night in self._ended_before(before, 1, "claim != ''")), "")

    def events(self) -> list[tuple[str, str]]:
        """What happened to the history itself: (when, what), oldest first."""
        with as_history_error(self.path):
            return [(row["at"], row["text"]) for row in self._connection.execute("SELECT * FROM events")]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: wholly there, flushed to the disk, or not at all. Raises HistoryError."""
        with as_history_error(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _before_on_its_host(self, night: Night, limit: int, where: str = "1", *values: Any) -> list[Night]:
        """As _ended_before, of those that ran where `night` did: other hosts' may have been handed in."""
        return self._ended_before(night.id, limit, f"host IN (?, '') AND {where}", night.host, *values)

    def _ended_before(self, key: int, limit: int, where: str = "1", *values: Any) -> list[Night]:
        """The last ended nights before the one of that id to which `where` applies, newest first."""
        clause = f"WHERE id < ? AND state = ? AND {where} ORDER BY id DESC LIMIT ?"
        return self._read(clause, (key, ENDED, *values, limit))

    def _read(self, clause: str, values: tuple[Any, ...]) -> list[Night]:
        with as_history_error(self.path):
            return rows.nights(self._connection, clause, values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

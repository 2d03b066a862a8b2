"""Taking in what hosts handed in, seeing which jobs ended without a night, and closing nights at their hour.

The same again changes nothing. A closed cell keeps its word: what comes later is shown beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab.core import files, redact
from lab.core.characters import one_line
from lab.documents.fleet import LateResult
from lab.fleet import matrix
from lab.fleet.ledger import Ledger, LedgerCell, LedgerNight
from lab.fleet.pulse import Pulse, moment
from lab.fleet.queue import Queue, QueuedJob, QueueError
from lab.history.model import Night
from lab.model.domain import Verdict
from lab.nights.archive import NotTakenError
from lab.nights.expecting import WRONG_HOST, Expected, weigh

_HANDED_IN = re.compile(r"(\d{4}-\d\d-\d\d)~([a-z0-9-]+)~([a-z0-9-]+)\.tar")
_REASON_CHARACTERS = 500


@dataclass
class Gathering:
    """One gathering on a coordinator. `take` puts an archive's night into the history and returns it."""

    ledger: Ledger
    queue: Queue
    pulse: Pulse
    take: Callable[[Path], Night]
    now: datetime
    notes: list[str] = field(default_factory=list)
    """What a person should know of it: what could not be taken in, whether the queue answers."""

    def gather(self) -> list[LedgerNight]:
        """Do it, holding the ledger's lock; returns the nights it closed.

        Raises LabError, OSError where a night cannot be taken in for a fault of this machine (a full disk):
        what was handed in stays where it is.
        """
        jobs = self._jobs()  # before the inbox is looked at: what a job handed in is there when it has ended
        for path in sorted(self.ledger.places.inbox.glob("*.tar")):
            self._take_in(path)
        for night in self.ledger.unclosed():
            self._look_at(night, jobs)
        due = [night for night in self.ledger.unclosed() if datetime.fromisoformat(night.closes) <= self.now]
        return [self._close(night) for night in due]

    # --- what was handed in ----------------------------------------------------------------------

    def _take_in(self, path: Path) -> None:
        match = _HANDED_IN.fullmatch(path.name)
        night = self.ledger.night(match[1]) if match else None
        asked = night.cell(match[2]) if night and match else None
        if match is None or night is None or asked is None:
            self._refuse(path, "nobody asked for it")
            return
        key, host = f"{match[1]}/{match[2]}", match[3]
        try:
            taken = self.take(path)
        except NotTakenError as error:  # any other is this machine's fault, such as a full disk
            self._refuse(path, error.what)
            self._settle_without(night.date, asked, host, f"what {host} handed in is refused: {error.what}")
            return
        if taken.key != key:
            why = f"it is of {taken.key or 'a night without a key'}, and was handed in for {key}"
            self._refuse(path, why)
            self._settle_without(night.date, asked, host, f"what {host} handed in is refused: {why}")
            return
        self._enter(night, asked, taken, host)
        path.unlink()

    def _enter(self, night: LedgerNight, asked: LedgerCell, taken: Night, host: str) -> None:
        """Put a night down for its cell; one that comes when the cell has its word is put beside it."""
        new = matrix.settled(asked.entry, taken, host, self._weighed(asked, taken, host))
        if asked.entry.state == "open":
            self._write(night.date, asked.model_copy(update={"entry": new}))
        elif taken.uuid not in (asked.entry.uuid, *(late.uuid for late in asked.entry.late)):
            verdict = new.verdict or Verdict.INCONCLUSIVE
            late = LateResult(at=self._at, host=host, uuid=taken.uuid, verdict=verdict, word=new.word)
            self._write(night.date, asked.with_entry(late=(*asked.entry.late, late)))

    def _weighed(self, asked: LedgerCell, taken: Night, host: str) -> tuple[Verdict, str]:
        """The verdict for the cell, and its reason. The id of a host is that of its first night."""
        expects = asked.cell.expects
        known = self._known_id(host, taken)
        if expects.host and expects.host != host:
            reason = f"{WRONG_HOST}: expected host {expects.host}, observed {host}"
            return Verdict.INCONCLUSIVE, f"{reason}; there it was {taken.verdict}: {taken.reason}"
        return weigh(Expected(known if expects.host else "", expects.virtualbox, expects.processor), taken)

    def _settle_without(self, day: str, asked: LedgerCell, host: str, word: str) -> None:
        """Say of an open cell why it has no night."""
        if asked.entry.state == "open":
            self._settle(day, asked, "settled", host, word)

    def _settle(self, day: str, asked: LedgerCell, state: str, host: str, word: str) -> None:
        plain = one_line(redact.clean(word))[:_REASON_CHARACTERS]
        new = asked.with_entry(
            state=state, verdict=Verdict.INCONCLUSIVE, host=host or asked.entry.host, word=plain
        )
        self._write(day, new)

    def _write(self, day: str, new: LedgerCell) -> None:
        self.ledger.write(self._read(day).replaced(new))

    def _read(self, day: str) -> LedgerNight:
        night = self.ledger.night(day)
        assert night is not None  # noqa: S101 - it was read a moment ago, under the lock
        return night

    def _refuse(self, path: Path, why: str) -> None:
        """Put aside what cannot be taken in, with the reason beside it."""
        place = files.private_folder(self.ledger.places.refused) / path.name
        files.write_atomic(place.with_suffix(".why"), f"{self._at} {redact.clean(why)}\n")
        path.replace(place)
        self.notes.append(f"{path.name} was not taken in: {redact.clean(why)} ({place})")

    def _known_id(self, host: str, taken: Night) -> str:
        """The id of the machine that goes by this name: that of its first night."""
        path = self.ledger.places.folder / "host-ids.json"
        known = files.read_object(path)
        if host not in known and taken.host:
            files.write_json(path, known | {host: taken.host})
        return str(known.get(host, ""))

    # --- the queue -------------------------------------------------------------------------------

    def _jobs(self) -> Mapping[str, QueuedJob]:
        """Every open cell's job, by key; those of which the queue could be asked."""
        jobs: dict[str, QueuedJob] = {}
        try:
            for night in self.ledger.unclosed():
                for each in night.open:
                    if each.request is not None:
                        jobs[f"{night.date}/{each.cell.name}"] = self.queue.job(each.request)
        except QueueError as error:
            self.notes.append(error.what)
        return jobs

    def _look_at(self, night: LedgerNight, jobs: Mapping[str, QueuedJob]) -> None:
        """Write down who has what, and of a job that ended without a night how it ended."""
        for each in night.open:
            job = jobs.get(f"{night.date}/{each.cell.name}")
            if job is not None and job.done:
                where = f" on {job.host}" if job.host else ""
                word = f"its job ended{where} without a night: {job.why or 'nothing says why'}"
                self._settle(night.date, each, "settled", job.host, word)
            elif job is not None and (word := self._progress(each, job)) != each.entry.word:
                self._write(night.date, each.with_entry(host=job.host, word=word))

    def _progress(self, asked: LedgerCell, job: QueuedJob) -> str:
        if job.at_work:
            silent = self._silent(job.host)
            return f"{job.host} has it since {moment(job.began)}" + (f"; {silent}" if silent else "")
        if job.host:
            return f"it waits for a host: {job.host} had it and was lost"
        return f"it waits for a host: {self._hosts(asked)}"

    # --- the hour --------------------------------------------------------------------------------

    def _close(self, night: LedgerNight) -> LedgerNight:
        """Close a night whose hour has come: what is open becomes inconclusive, and is told why."""
        for each in night.open:
            self._settle(night.date, each, "closed", "", self._why_open(each))
        closed = self._read(night.date).model_copy(update={"closed": self._at})
        self.ledger.write(closed)
        return closed

    def _why_open(self, asked: LedgerCell) -> str:
        """What is known, at the hour, of a cell of which nothing was handed in."""
        if asked.request is None:
            return "the queue never took it"
        if self.pulse.deaf(self.now.timestamp()):
            since = moment(self.pulse.at) if self.pulse.at else "before it first ran"
            return f"the coordinator's queue is silent since {since}: nobody could hand in anything"
        if asked.entry.host:
            return self._silent(asked.entry.host) or f"not done by the hour: {asked.entry.word}"
        return f"no host took it: {self._hosts(asked)}"

    def _silent(self, host: str) -> str:
        """`host silent since …`, where it is."""
        state = self.pulse.state(host, self.now.timestamp())
        if state in ("silent", "away"):
            return f"host silent since {self.pulse.since(host)} ({host})"
        return f"host never heard of ({host})" if state == "never" else ""

    def _hosts(self, asked: LedgerCell) -> str:
        """Of each host that could take it, whether it is there."""
        return ", ".join(self._silent(host) or f"{host} is there" for host in asked.cell.hosts)

    @property
    def _at(self) -> str:
        return self.now.astimezone(UTC).isoformat(timespec="seconds")

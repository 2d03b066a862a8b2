"""What the tasks nightly.* print, and what a webhook is sent."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field

from lab.ladder.document import CellEntry, RungName, RungStatus
from lab.model.document import (
    FILLED,
    GIVEN,
    Count,
    JsonDocument,
    JsonPart,
    Limited,
    MemberRule,
    Moment,
    Number,
    Ordinal,
    Seconds,
    Sha256,
    Text,
)
from lab.model.domain import Claim, Verdict

AnyClaim = Claim | Literal[""]


class VerdictCounts(JsonPart):
    """How many runs came to which verdict"""

    confirmed: Count
    refuted: Count
    blocked: Count
    inconclusive: Count
    not_applicable: Count = Field(alias="not applicable")


class RunClaim(JsonPart):
    claim: Claim
    verdict: Verdict
    reason: Text


class NightClaim(RunClaim):
    counts: VerdictCounts


class RunRung(JsonPart):
    rung: RungName
    status: RungStatus
    inconclusive: bool
    seconds: Seconds
    observed: str


class RunFigure(JsonPart):
    name: Text
    unit: Literal["s", "ratio"]
    value: Seconds


class NightRun(JsonPart):
    number: Ordinal
    kind: Literal["up", "validate", "compare"]
    started: Moment
    seconds: Seconds
    """of the monotonic clock"""
    verdict: Verdict
    claim: AnyClaim
    """empty when no run came far enough to name one"""
    reason: Text
    error: str
    """what ended it before it had an answer; else empty"""
    evidence: str
    """its evidence folder, empty when it had none"""
    cell: CellEntry | None
    """null when it did not come to be known"""
    claims: tuple[RunClaim, ...]
    rungs: tuple[RunRung, ...]
    figures: tuple[RunFigure, ...]
    cut: bool
    """whether what ended it was the night's budget"""


class NightFindingEntry(JsonPart):
    key: Text
    """the same for the same finding, every night"""
    text: Text
    worse: bool


class NightDelivery(JsonPart):
    channel: Text
    delivered: bool
    said: str


class NightEntry(JsonPart):
    id: Ordinal
    uuid: Text
    state: Literal["running", "ended"]
    started: Moment
    planned: Ordinal
    """runs, the comparison among them"""
    evidence: Text
    lab_version: Text
    ended: Moment | None
    seconds: Seconds | None
    """of the monotonic clock"""
    verdict: Verdict | None
    """null only while it runs"""
    claim: AnyClaim
    """empty when no run came far enough to name one"""
    reason: str
    clock_jump: Number
    """seconds the wall clock moved against the monotonic one; 0 below ten"""
    report: str
    """the file a person opens first, empty when there is none"""
    cell: CellEntry | None
    """null when it did not come to be known"""
    claims: tuple[NightClaim, ...]
    runs: tuple[NightRun, ...]
    findings: tuple[NightFindingEntry, ...]
    """against the nights before: of a verdict those of this host and engine, of a figure those of this
    cell"""
    notes: tuple[Text, ...]
    deliveries: tuple[NightDelivery, ...]
    key: str = Field(default="", exclude_if=not_)
    """DATE/CELL, of a night that was asked for by it; else absent"""
    host: str = Field(default="", exclude_if=not_)
    """id of the host it ran on; absent in older documents"""

    rules = (MemberRule({"state": "running"}, {"verdict": None}, {"verdict": GIVEN, "reason": FILLED}),)


class HistoryEvent(JsonPart):
    at: Moment
    text: Text


class NightlyHistory(JsonDocument):
    """The nights that were, newest first"""

    tag = "nightly.history/1"

    file: Text
    """the database"""
    events: tuple[HistoryEvent, ...]
    """what happened to the history itself"""
    nights: tuple[NightEntry, ...]


class NightlyRun(JsonDocument):
    """One night"""

    tag = "nightly.run/1"

    night: NightEntry


class ArchivedFile(JsonPart):
    path: Text
    """folder and name"""
    bytes: Count
    sha256: Sha256


class LeftOut(JsonPart):
    path: Text
    why: Text


class NightArchive(JsonDocument):
    """What an archive of a night says of itself: its first member, night.json"""

    tag = "nightly.archive/1"

    night: NightEntry
    """paths are the names of folders in the archive"""
    exported: Moment
    lab_version: Text
    files: tuple[ArchivedFile, ...]
    """the other members, in their order"""
    left_out: tuple[LeftOut, ...]


class ExportedNight(JsonPart):
    night: Ordinal
    uuid: Text
    key: str
    verdict: Verdict
    file: Text
    bytes: Count
    files: Count
    """of evidence in it"""
    left_out: tuple[LeftOut, ...]


class NightlyExport(JsonDocument):
    """Nights written into archives"""

    tag = "nightly.export/1"

    nights: tuple[ExportedNight, ...]


class ImportedNight(JsonPart):
    file: Text
    state: Literal["imported", "known", "refused"]
    why: str
    """of one that was refused"""
    night: NightEntry | None
    """as it is on record here; null where it was refused"""

    rules = (MemberRule({"state": "refused"}, {"night": None, "why": FILLED}, {"night": GIVEN}),)


class NightlyImport(JsonDocument):
    """Archives of nights taken into this host's history"""

    tag = "nightly.import/1"

    nights: tuple[ImportedNight, ...]


class ScheduledUnit(JsonPart):
    path: Text
    content: Text


class RunningNight(JsonPart):
    pid: Count
    since: str


class NightlySchedule(JsonDocument):
    """A night in the system's scheduler: install, uninstall, status"""

    tag = "nightly.schedule/1"

    scheduler: Literal["launchd", "systemd"]
    action: Literal["install", "uninstall", "status", "print"]
    changed: bool
    installed: tuple[Text, ...]
    """lab's files that are in place"""
    active: bool | None
    """whether the scheduler knows of it; null when it was not asked, or could not be"""
    units: tuple[ScheduledUnit, ...]
    """what would be installed, of --print"""
    notes: tuple[str, ...]
    running: RunningNight | None
    """the night at work"""
    last: NightEntry | None
    """the newest night that ended, of status"""


class NoticeFinding(JsonPart):
    marker: Annotated[str, Limited(pattern="^[0-9a-f]{12}$")]
    """the same for the same finding every night: of a verdict on this host and engine, of a figure in this
    cell"""
    text: Text
    worse: bool
    known: bool = Field(default=False, exclude_if=not_)
    """an issue that somebody has looked into: no news; absent where it is none"""


class NightlyNotice(JsonDocument):
    """What a webhook is sent of a night"""

    tag = "nightly.notice/1"

    night: Count
    """its number, 0 for one that could not be recorded"""
    uuid: Text
    host: Text
    started: Moment
    claim: AnyClaim
    """empty when no run came far enough to name one"""
    verdict: Verdict
    reason: Text
    cell: str
    """in one phrase; empty when it did not come to be known"""
    counts: VerdictCounts
    findings: tuple[NoticeFinding, ...]
    notes: tuple[str, ...]
    report: str
    """path on the host"""
    evidence: str
    """path on the host"""
    changed: str = Field(default="", exclude_if=not_)
    """what differs from the last good night; absent where nothing is known of that"""

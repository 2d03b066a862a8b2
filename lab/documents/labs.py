"""What the tasks on labs print."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from lab.core.steps import Event, Kind
from lab.engines.protocol import State
from lab.model.document import Count, JsonDocument, JsonPart, Limited, Moment, Number, Port, Seconds, Text
from lab.model.domain import Verdict

HALF_MADE: Literal["half-made"] = "half-made"
UNREADABLE: Literal["unreadable"] = "unreadable"
UNKNOWN: Literal["unknown"] = "unknown"

LabState = State | Literal["half-made", "unreadable", "unknown"]
"""A VM's, or of a lab whose creation was cut short, whose record is damaged, whose engine does not say."""

Page = Annotated[str, Limited(pattern=r"^http://127\.0\.0\.1:\d+/$")]
"""A page on the loopback, without its password: `lab.open` gives that to the browser."""


class ForwardEntry(JsonPart):
    name: Text
    host: Literal["127.0.0.1"]
    """always the loopback"""
    host_port: Port
    guest_port: Port


class SshAccess(JsonPart):
    command: Text
    port: Port


class AdbAccess(JsonPart):
    address: Annotated[str, Limited(pattern=r"^127\.0\.0\.1:\d+$")]
    """host:port for adb connect"""


class ScreenAccess(JsonPart):
    address: Page
    """without its password: `lab.open` gives that to the browser"""


class ServiceAddress(JsonPart):
    service: Text
    address: Annotated[str, Limited(pattern=r"^127\.0\.0\.1:\d+$")]


class KnownEmulator(JsonPart):
    """What a lab's record says of an emulator"""

    name: Text
    kind: Text
    ports: tuple[ServiceAddress, ...]
    adb: AdbAccess | None
    novnc: ScreenAccess | None


class StatusOfLab(JsonPart):
    name: Text
    uuid: Text | None
    state: LabState
    """disk full: paused for want of space on the host; crashed: the hypervisor gave it up; half-made: its
    creation was cut short; unreadable: its record is damaged; unknown: its engine does not say"""
    engine: str | None
    acceleration: str | None
    image: str | None
    emulator: str | None
    created: Moment | None


class HolderEntry(JsonPart):
    pid: Annotated[int, Limited(ge=0)]
    verb: str
    since: str


class MainContainer(JsonPart):
    exists: bool
    running: bool
    health: str = ""
    exit_code: int | None = None
    image: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)


class LabStatus(JsonDocument):
    """One lab"""

    tag = "lab.status/1"

    lab: StatusOfLab
    emulators: tuple[KnownEmulator, ...]
    forwards: tuple[ForwardEntry, ...]
    ssh: SshAccess | None
    adb: AdbAccess | None
    holder: HolderEntry | None
    """the command at work on it"""
    container: MainContainer | None
    """null when the VM cannot be asked"""
    evidence: str | None
    """the latest evidence folder"""
    disk_bytes: Count
    """what the lab's folder takes on this host's disk; the cached image below it is not in it"""


class ListedLab(JsonPart):
    name: Text
    uuid: Text | None
    state: LabState
    engine: str | None
    created: Moment | None
    emulators: tuple[KnownEmulator, ...]


class LabList(JsonDocument):
    """All labs of this user"""

    tag = "lab.list/1"

    labs: tuple[ListedLab, ...]


class SnapshotEntry(JsonPart):
    name: Text
    created: Moment
    live: bool
    """true when it holds memory too"""


class LabSnapshots(JsonDocument):
    """The snapshots of one lab"""

    tag = "lab.snapshots/1"

    lab: Text
    snapshots: tuple[SnapshotEntry, ...]


class EvidenceEntry(JsonPart):
    lab: Text
    run: Text
    verb: Text
    started: Moment
    path: Text
    files: tuple[str, ...]
    """relative to path"""
    verdict: Verdict | None


class LabEvidence(JsonDocument):
    """The evidence folders of past runs"""

    tag = "lab.evidence/1"

    runs: tuple[EvidenceEntry, ...]


class LabExec(JsonDocument):
    """What a command in the VM did"""

    tag = "lab.exec/1"

    argv: Annotated[tuple[str, ...], Limited(min_length=1)]
    status: int
    out: str
    err: str
    seconds: Seconds


class LabAction(JsonDocument):
    """What a command that changes a lab did"""

    tag = "lab.action/1"

    lab: Text
    action: Literal["halt", "suspend", "resume", "snapshot", "restore", "destroy", "attach", "detach"]
    state: LabState
    changed: bool
    """false when there was nothing to do"""
    notes: tuple[str, ...]


class WatchedEvent(JsonPart):
    """What happened, as steps.jsonl has it"""

    kind: Kind
    step: Count
    parent: Count
    """the step within which it was begun, 0 at the top"""
    name: str
    at: str
    seconds: Seconds
    """since the step began"""
    text: str
    done: Number | None
    total: Number | None
    """null where it is not known"""
    informs: bool
    """it failed, and nothing depends on that"""

    @classmethod
    def of(cls, event: Event) -> Self:
        """The event as a document has it."""
        return cls.model_validate(event)


class LabWatch(JsonDocument):
    """What the command at work on a lab did while it was watched, and before"""

    tag = "lab.watch/1"

    lab: Text
    holder: HolderEntry | None
    """the command; null when nobody was at work"""
    events: tuple[WatchedEvent, ...]
    """oldest first, of a great many the newest; of a step's progress one a second at most"""


class LabOpen(JsonDocument):
    """The page that shows an emulator's screen"""

    tag = "lab.open/1"

    lab: Text
    emulator: Text
    address: Page
    """without its password: `lab.open` gives that to the browser"""
    opened: bool

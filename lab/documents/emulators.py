"""What the tasks on emulators print."""

from __future__ import annotations

from typing import Any, Literal

from lab.documents.labs import KnownEmulator, LabState
from lab.model.document import JsonDocument, JsonPart, Seconds, Text


class ContainerEntry(JsonPart):
    exists: bool
    running: bool
    health: str
    exit_code: int | None
    image: str


class CheckEntry(JsonPart):
    name: Text
    ok: bool | None
    """null: it could not be seen (yet)"""
    observed: str


class StageEntry(JsonPart):
    name: Text
    seconds: Seconds | None
    """from the container's start; null: not reached"""


class DiagnosisEntry(JsonPart):
    name: Text
    what: Text
    lines: tuple[str, ...]
    hint: str
    final: bool
    """waiting longer will not mend it"""
    refutes: bool
    """it is evidence that this cannot work here"""


class HealthEntry(JsonPart):
    booted: bool
    usable: bool
    checks: tuple[CheckEntry, ...]
    timeline: tuple[StageEntry, ...]
    diagnoses: tuple[DiagnosisEntry, ...]
    facts: dict[str, Any]


class SeenEmulator(KnownEmulator):
    """An emulator as it is now"""

    container: ContainerEntry | None
    """null when the VM does not run"""
    health: HealthEntry | None
    """null when nobody could look"""


class EmulatorStatus(JsonDocument):
    """How the emulators of a lab are"""

    tag = "emulator.status/1"

    lab: Text
    state: LabState
    emulators: tuple[SeenEmulator, ...]


class EmulatorUp(JsonDocument):
    """An emulator that was started"""

    tag = "emulator.up/1"

    lab: Text
    launched: bool
    """false: it ran already"""
    emulator: SeenEmulator
    evidence: Text


class EmulatorList(JsonDocument):
    """The emulators in a lab's record"""

    tag = "emulator.list/1"

    lab: Text
    emulators: tuple[KnownEmulator, ...]


class LogEntry(JsonPart):
    name: Text
    text: str


class EmulatorLogs(JsonDocument):
    """An emulator's logs"""

    tag = "emulator.logs/1"

    lab: Text
    emulator: Text
    files: tuple[LogEntry, ...]


class EmulatorAction(JsonDocument):
    """What was done with one emulator"""

    tag = "emulator.action/1"

    lab: Text
    emulator: Text
    action: Literal["down", "screenshot", "install"]
    changed: bool
    notes: tuple[str, ...]

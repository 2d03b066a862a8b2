"""What is said of this machine, of the settings, and of what went wrong."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from lab.core.errors import ExitCode
from lab.model.document import JsonDocument, JsonPart, Limited, OneOf, Text
from lab.model.domain import Nesting

NamedFacts = Annotated[dict[str, Any], Limited(min_length=1)]
"""NamedFacts of this machine, by name."""


class EngineEntry(JsonPart):
    """What a verdict's cell says of the engine"""

    engine: Text
    version: str
    acceleration: str
    nesting: Nesting
    how: str
    details: dict[str, str]


class FindingEntry(JsonPart):
    name: Text
    good: bool
    observed: Text
    hint: str
    source: str


class DoctorEngine(JsonPart):
    name: Text
    usable: bool
    why: Text
    hint: str
    facts: EngineEntry | None
    findings: tuple[FindingEntry, ...]


class DoctorPackage(JsonPart):
    program: Text
    package: str | None
    """its name on this system, null when unknown"""
    present: bool
    needed_for: str


class DoctorKvm(JsonPart):
    usable: bool
    """the functional probe's answer"""
    why: Text
    nested: bool | None
    """null when unknown"""


class DoctorCheck(JsonPart):
    name: Text
    status: Literal["ok", "warn", "fail"]
    observed: str
    hint: str


class LabDoctor(JsonDocument):
    """What this machine can do, and what is missing"""

    tag = "lab.doctor/1"

    host: NamedFacts
    """facts of this machine, by name"""
    engines: tuple[DoctorEngine, ...]
    packages: tuple[DoctorPackage, ...]
    kvm: DoctorKvm | None
    """null where there is no KVM to ask"""
    checks: tuple[DoctorCheck, ...]


class ConfigValue(JsonPart):
    key: Text
    value: Any
    origin: Text
    """default, a file, an environment variable, or a flag"""


class LabConfig(JsonDocument):
    """Every effective setting and where it came from"""

    tag = "lab.config/1"

    values: tuple[ConfigValue, ...]


class ErrorEntry(JsonPart):
    what: Text
    hint: str
    evidence: tuple[str, ...]
    tail: str
    """the last lines of the output that shows it"""
    exit_code: Annotated[int, OneOf(tuple(int(code) for code in ExitCode if code))]


class ErrorDocument(JsonDocument):
    """Why a command did not do what was asked"""

    tag = "lab.error/1"

    error: ErrorEntry

"""When each host was last heard, as the master writes it down every few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core import files

KEEPALIVE_SECONDS = 30
"""How often a host says that it is there."""
PULSE_SECONDS = 5
SILENT_SECONDS = 150.0
"""A host that was not heard for so long is silent: five of its words are missing."""


class HostHeard(BaseModel):
    """Whether a host is connected, and when it was last heard (Unix time, 0: never)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    connected: bool
    heard: float


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    at: float
    plan: str
    pid: int
    hosts: dict[str, HostHeard]


@dataclass(frozen=True)
class Pulse:
    """What the master knew of its hosts at `at` (Unix time, 0: never); `plan` is the plan in force there."""

    at: float = 0.0
    plan: str = ""
    pid: int = 0
    hosts: dict[str, HostHeard] | None = None
    silent_seconds: float = SILENT_SECONDS

    def deaf(self, now: float) -> bool:
        """Whether the master itself did not listen, so that no host's silence says anything."""
        return now - self.at > self.silent_seconds

    def state(self, host: str, now: float) -> str:
        """connected, silent (connected, and not heard of), away or never."""
        known = (self.hosts or {}).get(host)
        if known is None or not known.heard:
            return "never"
        if now - known.heard > self.silent_seconds:
            return "silent"
        return "connected" if known.connected else "away"

    def since(self, host: str) -> str:
        """When the host was last heard, ISO 8601; empty when it never was."""
        known = (self.hosts or {}).get(host)
        return moment(known.heard) if known and known.heard else ""


def read(path: Path, silent_seconds: float = SILENT_SECONDS) -> Pulse:
    """What the master wrote last; nothing where it wrote nothing that can be read."""
    try:
        written = _Written.model_validate_json(files.read_text(path))
    except (OSError, ValidationError, ValueError):
        return Pulse(silent_seconds=silent_seconds)
    return Pulse(written.at, written.plan, written.pid, written.hosts, silent_seconds)


def moment(unix: float) -> str:
    """A Unix time as documents have it."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")

"""Emulators by name."""

from __future__ import annotations

from pathlib import Path

from lab.emulators.protocol import Emulator
from lab.errors import UsageError
from lab.journal import Journal

NONE = "none"
"""The name that stands for a lab without an emulator."""
NAMES = ("canary",)


def emulator(name: str, *, lab_uuid: str, cache: Path, journal: Journal) -> Emulator:
    """The emulator of one lab; `cache` is the image cache. Raises UsageError for an unknown name."""
    if name == "canary":
        from lab.emulators.canary import Canary

        return Canary(lab_uuid=lab_uuid, cache=cache, journal=journal)
    raise UsageError(f"there is no emulator {name!r}", hint=f"one of {', '.join([*NAMES, NONE])}")

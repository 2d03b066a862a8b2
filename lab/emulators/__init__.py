"""Emulators by name: lab's own, and those that installed packages bring."""

from __future__ import annotations

from lab.config import Settings
from lab.core import plugins
from lab.emulators.kind import EmulatorKind
from lab.emulators.options import Place
from lab.emulators.protocol import Emulator
from lab.model.domain import MAIN, NONE

__all__ = ["MAIN", "NONE", "Place", "emulator", "kind", "names"]


def names() -> tuple[str, ...]:
    """The kinds that can be asked for, lab's own first."""
    return plugins.names("lab.emulators")


def kind(name: str, settings: Settings) -> EmulatorKind:
    """The kind of emulator of that name.

    Raises UsageError for an unknown name; BlockedError where what another package brings cannot be used.
    """
    made: EmulatorKind = plugins.load("lab.emulators", name)(settings)
    return made


def emulator(name: str, place: Place) -> Emulator:
    """An emulator of the kind `name` at `place`. Raises as `kind` does."""
    return kind(name, place.settings).at(place)

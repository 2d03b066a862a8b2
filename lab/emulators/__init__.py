"""Emulators by name."""

from __future__ import annotations

from lab.core.errors import UsageError
from lab.emulators.options import AndroidOptions, Place
from lab.emulators.protocol import Emulator
from lab.model.domain import MAIN, NONE

__all__ = ["MAIN", "NAMES", "NONE", "AndroidOptions", "Place", "emulator"]

NAMES = ("canary", "docker-android")


def emulator(name: str, place: Place) -> Emulator:
    """The emulator of that name at `place`. Raises UsageError for an unknown name."""
    if name == "canary":
        from lab.emulators.canary import Canary

        return Canary(place)
    if name == "docker-android":
        from lab.emulators.docker_android import DockerAndroid

        return DockerAndroid(place)
    raise UsageError(f"there is no emulator {name!r}", hint=f"one of {', '.join([*NAMES, NONE])}")

"""Looks at docker-android that are diagnosed in several tests."""

from __future__ import annotations

from typing import Any

from lab.emulators.docker_android import timeline
from lab.emulators.docker_android.diagnosis import Case, diagnose
from lab.emulators.docker_android.sighting import Android, Sighting
from lab.emulators.protocol import Diagnosis
from tests.unit.docker_android_looks import seen


def found(*sightings: Sighting, late: bool = False, **more: Any) -> dict[str, Diagnosis]:
    reached = timeline.Reached()
    for one in sightings:
        reached.saw(one)
    case = Case(sightings, late=late, stages=reached.stages, **more)
    return {one.name: one for one in diagnose(case)}


def run_of(android: Android, seconds: float = 400.0, every: float = 20.0, **more: Any) -> list[Sighting]:
    return [seen(60.0 + at * every, android, **more) for at in range(int(seconds / every))]

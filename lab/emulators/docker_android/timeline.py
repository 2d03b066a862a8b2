"""The stages of a start, each with its seconds from the container's start on L1's clock. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lab.emulators.docker_android.sighting import Sighting
from lab.emulators.protocol import Stage

STAGES = (
    "container",
    "kvm-open",
    "adb-online",
    "boot-animation",
    "boot-completed",
    "package-manager",
    "launcher",
    "screen",
    "novnc",
)
"""In the order in which a boot usually reaches them; noVNC is often up long before Android."""


def reached(sighting: Sighting) -> dict[str, float]:
    """The stages this look shows, and when it was: at the latest then they were reached.

    Two are exact, since a process says when it began: the container's, and the one that has
    /dev/kvm open.
    """
    inside, android, novnc = sighting.inside, sighting.android, sighting.novnc
    found: dict[str, float] = {}
    if not inside.state.exists or not inside.started:
        return found
    now = max(0.0, sighting.seconds)
    found["container"] = 0.0
    if inside.holder is not None:
        found["kvm-open"] = max(0.0, inside.holder.started - inside.started)
    if android is not None and android.online:
        shown = {
            "adb-online": True,
            "boot-animation": bool(android.animation),
            "boot-completed": android.completed,
            "package-manager": android.packages_answer,
            "launcher": android.launcher,
            "screen": android.screen is not None and not android.screen.one_colour,
        }
        found |= {name: now for name, seen in shown.items() if seen}
    if inside.adb == "device":
        found.setdefault("adb-online", now)
    if novnc is not None and novnc.works:
        found["novnc"] = now
    return {name: round(seconds, 2) for name, seconds in found.items()}


def merged(known: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Each stage at the earliest it was ever seen."""
    return {
        name: min(seconds for seconds in (known.get(name), more.get(name)) if seconds is not None)
        for name in known.keys() | more.keys()
    }


def timeline(known: Mapping[str, float]) -> tuple[Stage, ...]:
    """All stages, in order, the ones not reached among them."""
    return tuple(Stage(name, known.get(name)) for name in STAGES)

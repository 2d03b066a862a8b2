"""The stages of a start, each with its seconds from the container's start on L1's clock. Pure.

The container's own belong to its start, Android's to the boot of L2 that reached them: after a restart
they are to be reached anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.emulators.docker_android.boots import Boot
from lab.emulators.docker_android.sighting import Sighting
from lab.emulators.protocol import BootStage

OF_L2 = ("adb-online", "boot-animation", "boot-completed", "package-manager", "launcher", "screen")
STAGES = ("container", "kvm-open", *OF_L2, "novnc")
"""In the order in which a boot usually reaches them; noVNC is often up long before Android."""

OWN = ""
"""In the place of a boot's id: the stages that are the container's own."""
_SLACK_SECONDS = 1.0
_LONGEST_ID = 64


def reached(sighting: Sighting) -> dict[str, float]:
    """The stages this look shows, and when it was: at the latest then they were reached.

    Two are exact, since a process says when it began: the container's, and the one that has
    /dev/kvm open.
    """
    inside, android, novnc = sighting.inside, sighting.android, sighting.novnc
    moments: dict[str, float] = {}
    if not inside.state.exists or not inside.started:
        return moments
    now = max(0.0, sighting.seconds)
    moments["container"] = 0.0
    if inside.holder is not None:
        moments["kvm-open"] = max(0.0, inside.holder.started - inside.started)
    if android is not None and android.online:
        shown = {
            "adb-online": True,
            "boot-animation": bool(android.animation),
            "boot-completed": android.completed,
            "package-manager": android.packages_answer,
            "launcher": android.launcher,
            "screen": android.screen is not None and not android.screen.one_colour,
        }
        moments |= {name: now for name, is_shown in shown.items() if is_shown}
    if inside.adb == "device":
        moments.setdefault("adb-online", now)
    if novnc is not None and novnc.works:
        moments["novnc"] = now
    return {name: round(seconds, 2) for name, seconds in moments.items()}


def merged(known: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Each stage at the earliest it was ever seen."""
    return {
        name: min(seconds for seconds in (known.get(name), more.get(name)) if seconds is not None)
        for name in known.keys() | more.keys()
    }


def timeline(known: Mapping[str, float]) -> tuple[BootStage, ...]:
    """All stages, in order, the ones not reached among them."""
    return tuple(BootStage(name, known.get(name)) for name in STAGES)


class Reached:
    """All stages that one start of the container is known to have reached, by L2's boot."""

    def __init__(self) -> None:
        self._boot = Boot()
        self._restarted = False
        self._known: dict[str, dict[str, float]] = {OWN: {}}
        self._unnamed: dict[str, float] = {}
        """Those of a boot whose id is not told yet."""

    @property
    def stages(self) -> dict[str, float]:
        """Stage to seconds: the container's own, and those of the boot that was heard last."""
        return {**self._known[OWN], **self._unnamed, **self._of_boot}

    @property
    def restarted(self) -> bool:
        """Another boot of L2 is known than the one that was heard last."""
        return self._restarted or any(name not in (OWN, self._boot.boot_id) for name in self._known)

    def saw(self, sighting: Sighting) -> None:
        """Keep what a look shows, of the boot it is of."""
        self._heard(sighting)
        for name, seconds in reached(sighting).items():
            self.add(name, seconds)

    def add(self, name: str, seconds: float) -> None:
        """Keep one stage; L2's of the boot that was heard last."""
        if name not in OF_L2:
            place = self._known[OWN]
        else:
            place = self._of_boot if self._boot.boot_id else self._unnamed
        place[name] = min(seconds, place.get(name, seconds))

    def told(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Keep what others saw, by boot."""
        for boot_id, stages in known.items():
            self._known[boot_id] = merged(self._known.get(boot_id, {}), stages)

    def to_tell(self) -> dict[str, dict[str, float]]:
        """What others may take over: nothing of a boot that has no name."""
        return {
            boot_id: dict(stages) for boot_id, stages in self._known.items() if len(boot_id) <= _LONGEST_ID
        }

    @property
    def _of_boot(self) -> dict[str, float]:
        return self._known.setdefault(self._boot.boot_id, {}) if self._boot.boot_id else {}

    def _heard(self, sighting: Sighting) -> None:
        kernel = sighting.kernel
        self._boot, another = self._boot.next(kernel)
        if another:
            self._restarted, self._unnamed = True, {}
        if kernel is None or not self._boot.boot_id:
            return
        # What was seen before its id was told may have been another boot's: not what is older than it is.
        began = sighting.seconds - self._boot.uptime - _SLACK_SECONDS
        for name, seconds in self._unnamed.items():
            if seconds >= began:
                self.add(name, seconds)
        self._unnamed = {}

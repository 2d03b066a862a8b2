"""What there is to judge: all looks so far, and facts that need several of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lab.core import redact
from lab.emulators.docker_android.boots import of_this_boot
from lab.emulators.docker_android.sighting import Sighting
from lab.emulators.docker_android.words import LINES
from lab.emulators.protocol import Diagnosis

_SETTLE_SECONDS = 30.0
"""How long a container may take to start its programs before one that is missing counts as missing."""
_STEADY_SECONDS = 120.0
_STEADY_LOOKS = 3


@dataclass(frozen=True)
class Case:
    """What there is to judge: all looks so far, oldest first, and whether the time is up."""

    seen: Sequence[Sighting]
    late: bool = False
    telemetry_off: bool = True
    stages: Mapping[str, float] = field(default_factory=dict)
    """The stages this start and L2's boot are known to have reached, also in looks of others."""
    with_kvm: bool = True
    """It is to run under KVM: only when it is timed without, it is not."""

    @property
    def last(self) -> Sighting:
        return self.seen[-1]

    @cached_property
    def this_boot(self) -> Sequence[Sighting]:
        """The looks since L2 restarted last."""
        return of_this_boot(self.seen)

    @property
    def alive(self) -> bool:
        """The emulator runs."""
        return self.last.inside.emulator is not None

    @property
    def age(self) -> float:
        """Seconds since the container's start: by L1's clock when it was looked at first, and ours since.

        Of the looks the one that makes it youngest counts, should L1's clock have been set in between.
        """
        return max(0.0, self.last.at + min(look.seconds - look.at for look in self.seen))

    @property
    def settled(self) -> bool:
        """The container has had the time to start what it starts."""
        return self.age >= _SETTLE_SECONDS or self.last.inside.watcher_ended

    @property
    def completed(self) -> bool:
        return self.last.android is not None and self.last.android.completed

    @property
    def words(self) -> str:
        """All the container said: Docker's log of it, its supervisor's, its emulator's."""
        inside = self.last.inside
        return f"{inside.log}\n{inside.supervisor_log}\n{inside.device_log}"

    @property
    def boot_seconds(self) -> float:
        """How long the boot took; the container's age while it has not ended.

        Not less than was waited for it here: L1's clock, which the stages are told by, may be set back.
        """
        sightings = self.this_boot
        ended = [look.at for look in sightings if look.android is not None and look.android.completed]
        waited = ended[0] - sightings[0].at if ended else 0.0
        return max(waited, self.stages.get("boot-completed", self.age))

    def steady(self, shows: Callable[[Sighting], bool | None]) -> bool:
        """Whether every look of this boot showed it for as long as the boot took, two minutes at least.

        That is an observation, and no longer a matter of patience. Looks that could not tell (None)
        neither help nor harm.
        """
        shown_at = [(look.at, shows(look)) for look in self.this_boot if shows(look) is not None]
        held: list[float] = []
        for at, shown in reversed(shown_at):
            if not shown:
                break
            held.append(at)
        if len(held) < _STEADY_LOOKS:
            return False
        return held[0] - held[-1] >= max(_STEADY_SECONDS, self.boot_seconds)


Look = Callable[[Case], Diagnosis | None]
"""Recognises one way to fail; None where the case does not show it."""


def lines(text: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The last lines that match, trimmed."""
    matching = [line.strip() for line in text.splitlines() if pattern.search(line)][-LINES:]
    return tuple(redact.clean(line)[:300] for line in matching)

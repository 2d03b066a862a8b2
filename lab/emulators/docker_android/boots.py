"""Which boot of L2 a look is of: what an earlier one showed says nothing of this one. Pure.

A kernel's boot id tells its boots apart; where it is not told, an uptime that went back does. Android
restarts by itself, in the same container and under the same monitor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.emulators.docker_android.sighting import Android, Sighting


@dataclass(frozen=True)
class Boot:
    """A boot, by what its kernel said last."""

    boot_id: str = ""
    """Empty while it is not told."""
    uptime: float = 0.0
    """Seconds."""

    def next(self, kernel: Android | None) -> tuple[Boot, bool]:
        """The boot that this answer is of, and whether it is another one. No answer is of this boot."""
        if kernel is None:
            return self, False
        if kernel.boot_id and self.boot_id:
            another = kernel.boot_id != self.boot_id
        else:
            another = kernel.uptime is not None and kernel.uptime < self.uptime
        before = Boot() if another else self
        uptime = before.uptime if kernel.uptime is None else kernel.uptime
        # A boot whose id was not told has none until it is; else the one known stands.
        return Boot(kernel.boot_id or before.boot_id, uptime), another


def of_this_boot(looks: Sequence[Sighting]) -> Sequence[Sighting]:
    """The looks, of all in order, since L2's last restart that was seen."""
    boot, first = Boot(), 0
    for number, look in enumerate(looks):
        boot, another = boot.next(look.kernel)
        first = number if another else first
    return looks[first:]

"""The rungs: a module a layer, in each the rungs whose names begin with its name.

A new rung is added to its module, and to the ladder here; docs/extending.md shows how.
"""

from __future__ import annotations

from lab.ladder.rung import Ladder
from lab.ladder.rungs import android, container, docker, guest, host, nested, vm

LADDER = Ladder(
    (
        host.cpu,
        host.engine,
        vm.settings,
        vm.boot,
        guest.paravirt,
        guest.cpu,
        guest.kvm,
        docker.engine,
        container.kvm,
        nested.boot,
        nested.adb,
        android.boot,
        android.usable,
    )
)
"""All rungs, lowest first."""

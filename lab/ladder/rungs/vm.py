"""vm.settings and vm.boot: L1 as the engine sees it, and L1 answering."""

from __future__ import annotations

import time
from dataclasses import replace

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.engines.protocol import SOFTWARE, State
from lab.guest import boot as guest_boot
from lab.guest.local import LocalGuest
from lab.ladder.facts import L1Boot
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import host
from lab.ladder.site import Site
from lab.model.domain import Observation

_CLOCK_SECONDS = 10.0
"""An L1 whose clock is this far from the host's was set, or slept; or the host's was."""


def _settings(site: Site) -> Observation:
    """What the engine says it set. Accepted is not delivered: only the guest's own view decides."""
    state = site.tools.machine.status()
    if state is not State.RUNNING:
        raise BlockedError(
            f"the VM is {state}", hint=f"`invoke lab.up --name {site.tools.machine.spec.name}` starts it"
        )
    spec, accepted = site.tools.machine.spec, site.tools.machine.settings()
    wanted = {
        "cpus": str(spec.cpus),
        "memory_mib": str(spec.memory_mib),
        "nested": "on" if spec.nested else "off",
    }
    if not spec.asked:  # somebody's machine is as it is
        wanted = {}
    differing = [key for key, value in wanted.items() if accepted.get(key) != value]
    site.facts.vm_settings = accepted
    ran = accepted.get("acceleration", "")
    expected = site.engine_facts
    if expected is not None and ran not in ("", "unknown", expected.acceleration):
        # What the engine says it does use counts for the cell, not what it was expected to.
        nesting = SOFTWARE.get(ran) or ("hardware" if expected.nesting == "emulated" else expected.nesting)
        how = f"{expected.how} (expected; it runs by {ran})"
        site.engine_facts = replace(expected, acceleration=ran, nesting=nesting, how=how)
    return Observation(
        ok=not differing,
        expected=", ".join(f"{key} {value}" for key, value in wanted.items()) or "the machine as it is",
        observed=", ".join(f"{key} {value}" for key, value in sorted(accepted.items())),
        hint=f"the engine did not take: {', '.join(sorted(differing))}" if differing else "",
    )


settings = Rung(
    "vm.settings",
    "The engine accepted the VM's settings, nested virtualization among them, as read back from it.",
    _settings,
    Layer.VM,
    "Settings",
    needs=(host.engine,),
    shows=("settings.json", "VBox.log"),
)


def _boot(site: Site) -> Observation:
    """L1 lets lab in over SSH, with the host key lab gave it."""
    deadline = Deadline.after(site.boot_seconds)
    guest = site.tools.log_in(deadline)
    system = guest_boot.wait_until_over(guest, deadline)
    command = ["cat", "/proc/sys/kernel/random/boot_id", "/proc/uptime", "/proc/sys/kernel/ostype"]
    words = guest.run([*command, "/proc/sys/kernel/osrelease", "/proc/stat"]).out.split()
    site.boot_id, uptime, kernel = words[0], float(words[1]), " ".join(words[3:5])
    site.facts.vm_boot = facts = L1Boot(boot_id=site.boot_id, uptime_seconds=uptime, kernel=kernel)
    beside, pinned = "", "" if isinstance(guest, LocalGuest) else ", host key as pinned"
    known = site.tools.known_boot_id
    if known and known != site.boot_id:
        facts.booted_anew = True
        beside = ", booted anew since it was looked at last, and not by lab"
    if "btime" in words:  # when it booted, by its wall clock
        ahead = round(int(words[words.index("btime") + 1]) + uptime - time.time())
        facts.clock_ahead_seconds = ahead
        if abs(ahead) >= _CLOCK_SECONDS:
            beside += f", its clock {ahead:+d} s from this machine's"
    return Observation(
        ok=True,
        expected="a login over SSH, the host key as pinned, and the boot over",
        observed=f"{kernel}, up {uptime:.0f} s, {system}{pinned}{beside}",
    )


boot = Rung(
    "vm.boot",
    "The VM boots and answers over SSH with the host key lab gave it (L1).",
    _boot,
    Layer.VM,
    "Kernel",
    needs=(settings,),
    shows=("console.log",),
)

"""container.kvm: KVM inside a container in L1."""

from __future__ import annotations

from lab.errors import DeadlineError
from lab.guest import trial
from lab.ladder.model import Observation
from lab.ladder.rungs.guest import settled
from lab.ladder.site import Site


def kvm(site: Site) -> Observation:
    """The tiny guest again, now in a container that was given /dev/kvm and nothing else.

    docker.engine's own container has run it already, where it could.
    """
    found = settled(site.container or trial.kvm(site.tools.guest, site.probe_deadline()))
    for mode in (found.real_mode, found.long_mode):
        if mode is not None and not mode.ok and "killed" in mode.error:
            # It ran in L1 itself: that it took too long here, beside other work, shows nothing.
            raise DeadlineError(f"the KVM probe in the container: {mode.error}", hint="try again")
    site.facts["container.kvm"] = found.model_dump(mode="json")
    return Observation(
        ok=found.ok,
        expected="the tiny guest runs in a container with --device /dev/kvm, as nobody in group kvm",
        observed=found.why,
        hint=""
        if found.ok
        else "KVM works in the VM and not in a container: look at the device and AppArmor",
    )

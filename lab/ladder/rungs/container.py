"""container.kvm: KVM inside a container in L1."""

from __future__ import annotations

from lab.guest import trial
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import docker, guest
from lab.ladder.site import Site
from lab.model.domain import Observation


def _kvm(site: Site) -> Observation:
    """The tiny guest again, now in a container that was given /dev/kvm and nothing else.

    docker.engine's own container has run it already, where it could. It ran in L1 itself: only KVM's own
    word on a guest counts against it here. A device that is absent or closed in there is Docker's doing.
    """
    probe = site.container or trial.kvm(site.tools.guest, site.probe_deadline())
    site.facts.container_kvm = probe
    guest.settled(probe, "in the container")
    return Observation(
        ok=probe.ok,
        expected="the tiny guest runs in a container with --device /dev/kvm, as nobody in group kvm",
        observed=probe.why,
        hint=""
        if probe.ok
        else "KVM ran the tiny guest in the VM, and not in a container: try again, and compare",
    )


kvm = Rung(
    "container.kvm",
    "The tiny guest runs to its HLT under /dev/kvm inside a container too.",
    _kvm,
    Layer.CONTAINER,
    "/dev/kvm",
    needs=(guest.kvm, docker.engine),
    decisive=True,
    shows=("dmesg.txt",),
)

"""docker.engine: Docker in L1 really runs a container."""

from __future__ import annotations

from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.guest import docker, trial
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import vm
from lab.ladder.site import Site
from lab.model.domain import Observation


def _engine(site: Site) -> Observation:
    """A container from an image that lab makes on the spot gives back a word used only now.

    Where KVM works in L1 that container runs the KVM probe too, for container.kvm. Where it cannot run with
    the device, this rung is checked with a container without: container.kvm then says what is wrong.
    """
    guest = site.tools.guest
    if not docker.version(guest):
        raise BlockedError(
            "Docker in the VM does not answer", hint="`invoke lab.up` installs it, or starts what is there"
        )
    try:
        site.container = trial.kvm(guest, site.probe_deadline()) if _kvm_works(site) else None
    except InterruptedByUser:
        raise
    except LabError:
        site.container = None
    if site.container is None:
        trial.container(guest, site.probe_deadline())
    site.facts.docker = info = docker.facts(guest)
    return Observation(
        ok=True,
        expected="Docker runs a container from an image made by lab",
        observed=f"Docker {info['version']} ran a container of lab's own image ({info['storage']})",
    )


def _kvm_works(site: Site) -> bool:
    return site.kvm is not None and site.kvm.ok


engine = Rung(
    "docker.engine",
    "Docker in L1 runs a container from an image lab made.",
    _engine,
    Layer.CONTAINER,
    "Docker",
    needs=(vm.boot,),
    shows=("docker-info.txt",),
)

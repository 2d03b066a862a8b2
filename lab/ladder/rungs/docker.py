"""docker.engine: Docker in L1 really runs a container."""

from __future__ import annotations

from lab.errors import BlockedError
from lab.guest import docker
from lab.ladder.model import Observation
from lab.ladder.site import Site


def engine(site: Site) -> Observation:
    """A container from an image that lab makes on the spot gives back a word used only now."""
    guest = site.tools.guest
    if not docker.answers(guest):
        raise BlockedError(
            "Docker in the VM does not answer", hint="`invoke lab.up` installs it, or starts what is there"
        )
    docker.prove(guest, site.probe_deadline())
    site.facts["docker"] = found = docker.facts(guest)
    return Observation(
        ok=True,
        expected="Docker runs a container from an image made by lab",
        observed=f"Docker {found['version']} ran a container of lab's own image ({found['storage']})",
    )

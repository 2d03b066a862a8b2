"""How the canary's container is started, and what its log is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError
from lab.core.proc import tail
from lab.emulators import container
from lab.emulators.canary import console
from lab.emulators.container import Container
from lab.emulators.protocol import ContainerState
from lab.guest.ssh import Guest
from lab.images.canary import ADB_PORT

ENTRYPOINT = "/opt/canary/entrypoint"
"""What the image starts."""
DEVICE = "/dev/kvm"

_NOBODY = "65534:65534"
_MEMORY = "768m"
_PROCESSES = "64"


def launch(
    canary: Container,
    guest: Guest,
    reference: str,
    *,
    nonce: str,
    publish: int | None = None,
    accel: str = "kvm",
) -> None:
    """Start it with no more rights than L2 needs; `publish` is the port of L1 for its ADB."""
    words = ["--user", _NOBODY, "--cap-drop", "ALL", "--read-only"]
    words += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]  # noqa: S108 - the container's
    words += ["--memory", _MEMORY, "--pids-limit", _PROCESSES]
    words += ["--env", f"CANARY_NONCE={nonce}", "--env", f"CANARY_ACCEL={accel}"]
    ports = {} if publish is None else {ADB_PORT: publish}
    canary.run(guest, reference, words, kvm=accel == "kvm", publish=ports)


def until_told(canary: Container, guest: Guest, deadline: Deadline) -> tuple[str, ContainerState]:
    """Its log, once it says that L2 is ready or that it failed, and what it is like then.

    Raises DeadlineError, and when it ended without saying either BlockedError if it was for want of
    memory, else InconclusiveError.
    """
    log, inspected = canary.follow(guest, (console.READY, console.FAILED), deadline)
    state = parse(inspected)
    if any(line.startswith((console.READY, console.FAILED)) for line in log.splitlines()):
        return log, state
    if container.killed_for_memory(state):
        raise BlockedError(
            f"out of memory: the container {canary.name} ended ({container.ending(state)})",
            hint="make the lab anew with a larger vm.memory_mib",
            tail=tail(log),
        )
    raise InconclusiveError(
        f"the container {canary.name} "
        + (f"ended ({container.ending(state)})" if state.exists else "is not there"),
        hint="`invoke lab.logs --source container` shows its log",
        tail=tail(log),
    )


def parse(inspected: Mapping[str, Any] | None) -> ContainerState:
    """What one object of `docker container inspect` says of a canary."""
    if inspected is None:
        return container.parse(None)
    given = container.environment(inspected)
    devices = [
        device.get("PathOnHost", "") for device in (inspected.get("HostConfig") or {}).get("Devices") or []
    ]
    facts = {
        "nonce": given.get("CANARY_NONCE", ""),
        "acceleration": given.get("CANARY_ACCEL", "kvm"),
        "devices": " ".join(devices),
        "command": " ".join([inspected.get("Path", ""), *(inspected.get("Args") or [])]).strip(),
    }
    return container.parse(inspected, facts)

"""Which host ports a lab's forwards use, and starting the machine on ports that really bind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.engines.protocol import Forward, PortTakenError
from lab.errors import BlockedError
from lab.host.ports import free_port, holder_of, is_free
from lab.steps import Steps
from lab.store import Access, Lab

PREFERRED = {"ssh": 10022, "adb": 15555, "console": 15554, "novnc": 16080, "appium": 14723}
"""Not 22 and 5555: a user's own adb server adopts whatever answers on 5555."""

_TRIES = 5


def choose(lab: Lab, guest_ports: dict[str, int], fixed: dict[str, int], steps: Steps) -> list[Forward]:
    """Forwards for `guest_ports` (name to VM port), written into the lab's record.

    A port used before is kept while it is free, one the user fixed must be free, and any
    other is replaced by a free one, which is reported.
    """
    record = lab.record()
    chosen: dict[str, Access] = {}
    for name, guest_port in guest_ports.items():
        demanded = fixed.get(name, 0)
        if demanded:
            must_be_free(name, demanded)
            chosen[name] = Access(host_port=demanded, guest_port=guest_port, fixed=True)
            continue
        before = record.forwards.get(name)
        wanted = before.host_port if before else PREFERRED[name]
        port = free_port(wanted, [access.host_port for access in chosen.values()])
        if port != wanted:
            steps.note(f"host port {wanted} is taken: {name} is on {port}")
        chosen[name] = Access(host_port=port, guest_port=guest_port)
    lab.change(forwards={name: access.model_dump() for name, access in chosen.items()})
    return forwards(lab)


def forwards(lab: Lab) -> list[Forward]:
    """The forwards in the lab's record."""
    return [
        Forward(name, access.host_port, access.guest_port) for name, access in lab.record().forwards.items()
    ]


def start_on_free_ports(
    choose_again: Callable[[], Sequence[Forward]], start: Callable[[Sequence[Forward]], None]
) -> None:
    """Start with chosen ports; where another process wins the race for one, choose again."""
    for attempt in range(_TRIES):
        try:
            return start(choose_again())
        except PortTakenError:
            if attempt == _TRIES - 1:
                raise
    return None


def must_be_free(name: str, port: int) -> None:
    """Raise BlockedError, naming the process that holds it, unless the port is free."""
    if not is_free(port):
        raise BlockedError(
            f"host port {port}, which the configuration fixes for {name}, is taken{holder_of(port)}",
            hint=f"end that process, or set ports.{name} = 0 so that lab chooses one",
        )

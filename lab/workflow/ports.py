"""Which host ports a lab's forwards use, and starting the machine on ports that really bind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence

from lab.core.errors import BlockedError
from lab.core.steps import Steps
from lab.emulators.options import PORTS_APART
from lab.engines.protocol import Forward, Machine, PortTakenError
from lab.host.ports import free_port, holder_of, is_free
from lab.records.labs import Lab
from lab.records.record import Access, Record

PREFERRED = {"ssh": 10022, "adb": 15555, "console": 15554, "novnc": 16080, "appium": 14723}
"""Not 22 and 5555: a user's own adb server adopts whatever answers on 5555."""

_TRIES = 5


def choose(
    lab: Lab,
    guest_ports: Mapping[str, int],
    fixed: Mapping[str, int],
    steps: Steps,
    held: Container[int] = (),
) -> list[Forward]:
    """Forwards for `guest_ports` (name to VM port), written into the lab's record.

    A port used before is kept while it is free, one the user fixed must be free, and any
    other is replaced by a free one, which is reported. `held` are ports the lab itself has now.
    """
    record = lab.record()
    chosen: dict[str, Access] = {}
    for name, guest_port in guest_ports.items():
        taken = [access.host_port for access in chosen.values()]
        chosen[name] = _choose(record, name, guest_port, fixed.get(name, 0), steps, taken, held)
    lab.change(forwards=chosen)
    return forwards(lab)


def _choose(
    record: Record,
    name: str,
    guest_port: int,
    demanded: int,
    steps: Steps,
    taken: Container[int],
    held: Container[int],
) -> Access:
    if demanded:
        if demanded not in held:
            must_be_free(name, demanded)
        return Access(host_port=demanded, guest_port=guest_port, fixed=True)
    before = record.forwards.get(name)
    wanted = before.host_port if before else _preferred(record, name)
    if wanted in held and wanted not in taken:
        return Access(host_port=wanted, guest_port=guest_port)
    port = free_port(wanted, taken)
    if port != wanted:
        steps.note(f"host port {wanted} is taken: {name} is on {port}")
    return Access(host_port=port, guest_port=guest_port)


def _preferred(record: Record, name: str) -> int:
    """The port to try first: each further emulator has its own hundred, as it has in the VM."""
    service, _, instance = name.partition("-")
    index = record.instances[instance].index if instance else 0
    return PREFERRED[service] + PORTS_APART * index


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


def open_at_run_time(
    lab: Lab, machine: Machine, guest_ports: Mapping[str, int], fixed: Mapping[str, int], steps: Steps
) -> None:
    """Have these forwards, too, on the running machine; each is in the lab's record before it is open."""
    there = {forward.name: forward for forward in machine.forwards()}
    for name, guest_port in guest_ports.items():
        for attempt in range(_TRIES):
            record = lab.record()
            others = {other: access for other, access in record.forwards.items() if other != name}
            held = [there[name].host_port] if name in there else []
            taken = [access.host_port for access in others.values()]
            access = _choose(record, name, guest_port, fixed.get(name, 0), steps, taken, held)
            lab.change(forwards=others | {name: access})
            try:
                machine.add_forward(Forward(name, access.host_port, guest_port))
                break
            except PortTakenError:
                if attempt == _TRIES - 1:
                    raise


def close_at_run_time(lab: Lab, machine: Machine, names: Collection[str]) -> None:
    """Close these forwards of the running machine, and forget them: in this order, so that none is lost."""
    for name in names:
        machine.remove_forward(name)
        lab.change(
            forwards={other: access for other, access in lab.record().forwards.items() if other != name}
        )


def must_be_free(name: str, port: int) -> None:
    """Raise BlockedError, naming the process that holds it, unless the port is free."""
    if not is_free(port):
        raise BlockedError(
            f"host port {port}, which the configuration fixes for {name}, is taken{holder_of(port)}",
            hint=f"end that process, or set ports.{name} = 0 so that lab chooses one",
        )

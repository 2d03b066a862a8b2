"""What a VM needs that goes on from a saved memory: its ports, its clock, a look at its emulators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, InterruptedByUser, LabError
from lab.emulators import MAIN
from lab.engines.protocol import HELD, Forward, State
from lab.guest import clock
from lab.ladder.rungs import nested
from lab.workflow import ports
from lab.workflow.workbench import Workbench


def start_on_ports(bench: Workbench, start: Callable[[Sequence[Forward]], None]) -> None:
    """Start on the lab's ports, those it holds while it runs among them."""
    running = bench.machine.status() in {State.RUNNING, *HELD}
    held = [forward.host_port for forward in ports.forwards(bench.lab)] if running else []
    fixed = bench.session.settings.ports.model_dump()
    ports.start_on_free_ports(
        lambda: ports.choose(bench.lab, bench.guest_ports(), fixed, bench.session.steps, held), start
    )
    bench.close()


def come_back(bench: Workbench) -> list[str]:
    """Set the clock of a VM that slept, and ask each L2 over ADB; gives a note of each.

    Raises LabError, once all were asked, for those that do not answer as before.
    """
    set_clock(bench)
    notes: list[str] = []
    lost: dict[str, LabError] = {}
    for name, known in bench.record().instances.items():
        if not known.nonce:
            continue
        if name != MAIN and not bench.emulator(name).state(bench.guest).running:
            notes.append(f"{name} does not run")  # nor did it before: a container does not end in its sleep
            continue
        try:
            notes.append(_answers(bench, name))
        except InterruptedByUser:
            raise
        except LabError as error:
            lost[name] = error
    if lost:
        raise _lost(lost)
    return notes


def _lost(lost: Mapping[str, LabError]) -> LabError:
    """The error for emulators that did not come back; it counts as the first of theirs does."""
    name, first = next(iter(lost.items()))
    families = (BlockedError, InconclusiveError, LabError)
    family = next(kind for kind in families if isinstance(first, kind))
    reasons = [error.what if name == MAIN else f"{name}: {error.what}" for name, error in lost.items()]
    start = "lab.up" if name == MAIN else f"emulator.restart {name}"
    return family(
        f"the VM is back, but its guest is not: {'; '.join(reasons)}",
        hint=first.hint or f"`invoke {start}` starts it anew",
        evidence=first.evidence,
        tail=first.tail,
    )


def _answers(bench: Workbench, name: str) -> str:
    """Ask one L2 over ADB. Raises LabError with what it said when it is not what it was."""
    main = name == MAIN
    site = bench.site(boot_seconds=bench.session.settings.deadlines.ssh, instance=name)
    site.boot_id = bench.record().boot_id
    with bench.session.steps.step(nested.adb.name, "" if main else name) as step:
        observation = nested.adb(site)
        step.result = observation.observed
    if not observation.ok:
        raise LabError(observation.observed)
    return f"{'ADB' if main else name} answers at {site.tools.adb_address}"


def set_clock(bench: Workbench) -> None:
    """Set L1's clock to this machine's."""
    with bench.session.steps.step("vm.clock"):
        clock.set_now(bench.guest, Deadline.after(bench.session.settings.deadlines.ssh))

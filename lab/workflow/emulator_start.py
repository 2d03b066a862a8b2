"""One emulator's way from its image to a guest that answers; how L2 is launched, for `lab.up` too."""

from __future__ import annotations

import secrets
from typing import cast

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError
from lab.emulators import MAIN
from lab.emulators.container import available_mib
from lab.emulators.protocol import AndroidEmulator, ContainerState, NestedFailedError, NestedLostError
from lab.engines.protocol import SOFTWARE
from lab.guest import kvm
from lab.guest.ssh import Guest
from lab.workflow import attached, emulator_status, ports
from lab.workflow.emulator_status import Sight
from lab.workflow.workbench import Workbench

_LAUNCHES = 3
"""How often L2 is launched before its failure counts."""
_ADB_SECONDS = 120.0
"""How long ADB may take to reach an L2 that has booted."""


def is_still_running(bench: Workbench, name: str, container: ContainerState) -> bool:
    """Whether the L2 that was launched last still runs, in its container as it is now."""
    nonce = bench.instance(name).nonce
    return bool(nonce) and bench.emulator(name).runs_with(container, nonce)


def launch(bench: Workbench, name: str, guest: Guest, *, again: bool = False) -> None:
    """Launch L2 with a nonce of its own. `again` keeps earlier failures listed."""
    nonce = secrets.token_hex(16)
    if name == MAIN:
        bench.lab.change(verdict="")  # that was another L2's
    bench.lab.change_instance(name, nonce=nonce, **({} if again else {"failed_launches": []}))
    with bench.session.steps.step("emulator.start", name) as step:
        bench.emulator(name).start(guest, step, nonce=nonce)


def boot(bench: Workbench, name: str, seconds: float) -> None:
    """Wait for L2 to report; launch again after NestedFailedError or NestedLostError, `_LAUNCHES` in all.

    `seconds` is how long each launch may take. One failure may be a fluke of the emulation under it; each is
    noted and kept in the record. The last one raises nothing: the rung looks at it. Other errors of `booted`
    pass through.
    """
    emulator = bench.emulator(name)
    for attempt in range(_LAUNCHES):
        if attempt:
            launch(bench, name, bench.guest, again=True)
        try:
            emulator.booted(bench.guest, Deadline.after(seconds))
            return
        except (NestedFailedError, NestedLostError) as failure:
            bench.session.steps.note(f"L2 did not come up: {failure.what}")
            failed = bench.instance(name).failed_launches
            bench.lab.change_instance(name, failed_launches=[*failed, failure.what])


class Launch:
    """Bring, forward, start and wait for one emulator; a step already done is skipped. Raises LabError."""

    def __init__(self, bench: Workbench, name: str) -> None:
        self._bench = bench
        self._name = name
        self._session = bench.session
        self._steps = bench.session.steps
        self._emulator = bench.emulator(name)

    def bring(self) -> None:
        """Have the image in the VM's Docker."""
        emulator = self._emulator
        if emulator.to_be_fetched():
            self._require_kvm()
        with self._steps.step("emulator.prepare", emulator.name) as step:
            emulator.prepare(step)
        with self._steps.step("emulator.load", emulator.name) as step:
            emulator.load(self._bench.guest, step)

    def forward(self) -> None:
        """Have its services reachable from the host."""
        bench = self._bench
        with self._steps.step("emulator.ports") as step:
            if attached.is_attached(bench.record()):
                attached.open_ports(bench)
            else:
                fixed = self._session.settings.ports.model_dump()
                wanted = bench.ports_of(self._name)
                ports.open_at_run_time(bench.lab, bench.machine, wanted, fixed, self._steps)
            step.result = ", ".join(
                f"{service} on {address}" for service, address in bench.addresses(self._name).items()
            )

    def start(self, *, anew: bool = False) -> bool:
        """Launch L2, unless it still runs; `anew` replaces a running container. Whether L2 was launched."""
        bench, name = self._bench, self._name
        container = self._emulator.state(bench.guest)
        if not anew and is_still_running(bench, name, container):
            return False
        if not container.running:
            self._require_memory()
        launch(bench, name, bench.guest)
        return True

    def settle(self) -> Sight:
        """Wait until it is usable, or will not be, or its time is up; how it is then."""
        bench, name = self._bench, self._name
        left = seconds = self._seconds()
        try:
            with self._steps.step("emulator.boot", name):
                boot(bench, name, seconds)
        except (DeadlineError, InconclusiveError, BlockedError) as error:
            self._steps.note(error.what)  # how it is then is what the look below shows
            left = 0
        if not self._emulator.android:
            return emulator_status.look(bench, name, _ADB_SECONDS)
        with self._steps.step("emulator.wait", name) as step:
            emulator = cast(AndroidEmulator, self._emulator)
            health = emulator.wait(bench.reach(name), "usable", step, Deadline.after(left))
            step.result = "usable" if health.usable else "not usable"
        container = self._emulator.state(bench.guest)
        return Sight(name, self._emulator.name, bench.addresses(name), container, health)

    def _seconds(self) -> float:
        if not self._emulator.android:
            return self._session.settings.deadlines.nested_boot
        return android_seconds(self._bench, self._name)

    def _require_kvm(self) -> None:
        """Gigabytes are fetched for nothing where KVM does not work. Raises BlockedError."""
        site = self._bench.site(boot_seconds=self._session.settings.deadlines.ssh, instance=self._name)
        probe = kvm.probe(self._bench.guest, site.probe_deadline()).probe
        if not probe.ok:
            raise BlockedError(
                f"the image of {self._emulator.name} is not fetched: KVM runs no tiny guest in the VM "
                f"({probe.why})",
                hint="`invoke lab.validate` says what that means",
            )

    def _require_memory(self) -> None:
        """A further Android must not drive the VM out of memory: the kernel would end the first one."""
        wanted = self._emulator.memory_mib
        if self._name == MAIN or not wanted:
            return
        available = available_mib(self._bench.guest)
        if available is not None and available < wanted:
            raise BlockedError(
                f"{self._name} may take {wanted} MiB of the VM's memory, and "
                f"{available} MiB is available there",
                hint="set emulator.memory_mib lower, or make the lab anew with a larger vm.memory_mib",
            )


def android_seconds(bench: Workbench, name: str = MAIN) -> float:
    """How long Android may take to boot in this lab's VM, which is asked what its processor offers."""
    site = bench.site(boot_seconds=bench.session.settings.deadlines.ssh, instance=name)
    site.engine_facts = bench.engine.facts()
    if site.engine_facts.acceleration not in SOFTWARE:  # else that alone decides
        site.facts.guest = kvm.probe(bench.guest, site.probe_deadline())
    return site.boot_wait()

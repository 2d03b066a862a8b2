"""One emulator's way from its image to a guest that answers: beside others, in a VM that runs."""

from __future__ import annotations

import secrets
from typing import cast

from lab.commands import looking, ports
from lab.commands.looking import Sight
from lab.commands.workbench import Workbench
from lab.deadline import Deadline
from lab.emulators import MAIN
from lab.emulators.protocol import AndroidEmulator, NestedFailedError
from lab.engines.protocol import SOFTWARE
from lab.errors import BlockedError, DeadlineError, InconclusiveError
from lab.guest import kvm
from lab.ladder.rungs import android

_LAUNCHES = 3
"""How often L2 is launched before its failure counts: one may be a fluke of the emulation under it."""
_ADB_SECONDS = 120.0
"""How long ADB may take to reach an L2 that has booted."""
_KIB_PER_MIB = 1024


class Launch:
    """Each step is done only as far as it is missing. Steps raise LabError."""

    def __init__(self, bench: Workbench, name: str) -> None:
        self._bench = bench
        self._name = name
        self._session = bench.session
        self._steps = bench.session.steps
        self._emulator = bench.emulator_at(name)

    def bring(self) -> None:
        """Have the image in the VM's Docker."""
        emulator = self._emulator
        if not emulator.android:
            self._session.need({"build-image"})
        with self._steps.step("emulator.prepare", emulator.name) as step:
            emulator.prepare(step)
        with self._steps.step("emulator.load", emulator.name) as step:
            emulator.load(self._bench.guest, step)

    def forward(self) -> None:
        """Have its services reachable from the host."""
        bench = self._bench
        with self._steps.step("emulator.ports") as step:
            fixed = self._session.settings.ports.model_dump()
            ports.open_at_run_time(bench.lab, bench.machine, bench.ports_of(self._name), fixed, self._steps)
            step.result = ", ".join(
                f"{service} on {address}" for service, address in bench.addresses(self._name).items()
            )

    def start(self, *, anew: bool = False) -> bool:
        """Launch L2; unless `anew`, one that was launched and still runs stays. Says whether one was."""
        known = self._bench.instance(self._name)
        found = self._emulator.state(self._bench.guest)
        if not anew and found.running and known.nonce and self._emulator.runs_with(found, known.nonce):
            return False
        if not found.running:
            self._require_memory()
        self._bench.change_instance(self._name, failed_launches=[])
        self._launch()
        return True

    def settle(self) -> Sight:
        """Wait until it is usable, or will not be, or its time is up; how it is then."""
        bench, name = self._bench, self._name
        left = seconds = self._seconds()
        try:
            self._boot(seconds)
        except (DeadlineError, InconclusiveError, BlockedError) as error:
            self._steps.note(error.what)  # how it is then is what the look below shows
            left = 0
        if not self._emulator.android:
            return looking.look(bench, name, _ADB_SECONDS)
        with self._steps.step("emulator.wait", name) as step:
            emulator = cast(AndroidEmulator, self._emulator)
            health = emulator.wait(bench.reach(name), "usable", step, Deadline.after(left))
            step.result = "usable" if health.usable else "not usable"
        container = self._emulator.state(bench.guest)
        return Sight(name, self._emulator.name, bench.addresses(name), container, health)

    def _boot(self, seconds: float) -> None:
        """Wait for L2's own word, launching it anew where it could not be."""
        for attempt in range(_LAUNCHES):
            if attempt:
                self._launch()
            try:
                with self._steps.step("emulator.boot", self._name):
                    self._emulator.booted(self._bench.guest, Deadline.after(seconds))
                return
            except NestedFailedError as failure:
                # None is hidden: the last one is looked at, and how many there were before it is told.
                self._steps.note(f"L2 did not come up: {failure.what}")
                failed = self._bench.instance(self._name).failed_launches
                self._bench.change_instance(self._name, failed_launches=[*failed, failure.what])

    def _launch(self) -> None:
        nonce = secrets.token_hex(16)
        self._bench.change_instance(self._name, nonce=nonce)
        if self._name == MAIN:
            self._bench.lab.change(verdict="")  # that was another L2's
        with self._steps.step("emulator.start", self._name) as step:
            self._emulator.start(self._bench.guest, step, nonce=nonce)

    def _seconds(self) -> float:
        bench, deadlines = self._bench, self._session.settings.deadlines
        if not self._emulator.android:
            return deadlines.nested_boot
        site = bench.site(boot_seconds=deadlines.ssh, instance=self._name)
        site.engine_facts = bench.engine.facts()
        if site.engine_facts.acceleration not in SOFTWARE:  # else that alone decides
            site.kvm = kvm.probe(bench.guest, site.probe_deadline())
        return android.seconds(site)

    def _require_memory(self) -> None:
        """A further Android must not drive the VM out of memory: the kernel would end the first one."""
        if self._name == MAIN or not self._emulator.android:
            return
        wanted = self._session.settings.emulator.memory_mib
        lines = self._bench.guest.read("/proc/meminfo").splitlines()
        found = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
        if found is not None and found < wanted * _KIB_PER_MIB:
            raise BlockedError(
                f"{self._name} may take {wanted} MiB of the VM's memory, and "
                f"{found // _KIB_PER_MIB} MiB is available there",
                hint="set emulator.memory_mib lower, or make the lab anew with a larger vm.memory_mib",
            )

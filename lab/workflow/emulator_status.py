"""What an emulator is like now: its container, its health, how it is reached. Looking changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

from rich.console import Console

from lab.core import redact
from lab.core.errors import ExitCode, LabError
from lab.core.showing import show
from lab.documents.emulators import SeenEmulator
from lab.documents.labs import AdbAccess, KnownEmulator, ScreenAccess, ServiceAddress
from lab.emulators.protocol import (
    AndroidEmulator,
    BootStage,
    Check,
    ContainerState,
    Diagnosis,
    Health,
)
from lab.engines.protocol import State
from lab.ladder.rungs import nested
from lab.workflow.workbench import Workbench

_ANSWER_SECONDS = 20.0
"""How long one look waits for an L2 to answer."""
_RUNGS = (nested.boot, nested.adb)
_MARKS = {True: "✓", False: "✗", None: "?"}


@dataclass(frozen=True)
class Sight:
    """One emulator as it is now. `container` and `health` are None when nobody could look."""

    name: str
    kind: str
    addresses: dict[str, str]
    container: ContainerState | None = None
    health: Health | None = None

    @property
    def code(self) -> ExitCode:
        """0 usable, 10 seen to be impossible, 12 not (yet) usable, 11 nothing to look at."""
        if self.health is None:
            return ExitCode.BLOCKED
        if self.health.usable:
            return ExitCode.DONE
        refuted = any(diagnosis.refutes for diagnosis in self.health.diagnoses)
        return ExitCode.REFUTED if refuted else ExitCode.INCONCLUSIVE

    def entry(self) -> SeenEmulator:
        """As documents have it."""
        return SeenEmulator(
            **dict(known(self.name, self.kind, self.addresses)),
            container=self.container,
            health=self.health and _without_secrets(self.health),
        )

    def show(self, console: Console) -> None:
        show(console, *map(redact.clean, self._lines()))

    def _lines(self) -> Iterable[str]:
        yield f"{self.name}: {self.kind}, {self._word}"
        for service, address in self.addresses.items():
            yield f"  {service + ':':<10}{reached(service, address)}"
        if self.health is None:
            return
        for check in self.health.checks:
            yield f"  {_MARKS[check.ok]} {check.name:<16} {check.observed}"
        stages = [stage for stage in self.health.timeline if stage.seconds is not None]
        if stages:
            yield "  after " + ", ".join(f"{stage.seconds:.0f} s {stage.name}" for stage in stages)
        for diagnosis in self.health.diagnoses:
            yield f"  {diagnosis.name}: {diagnosis.what}"
            yield from (f"    │ {line}" for line in diagnosis.lines)
            if diagnosis.hint:
                yield f"    hint: {diagnosis.hint}"

    @property
    def _word(self) -> str:
        if self.container is None:
            return "not looked at, for the VM does not run"
        if not self.container.exists:
            return "no container"
        if not self.container.running:
            return f"its container ended (exit code {self.container.exit_code})"
        if self.health is None or not self.health.usable:
            return "running, not usable"
        return "usable"


def known(name: str, kind: str, addresses: dict[str, str]) -> KnownEmulator:
    """What the record says of an emulator."""
    adb, novnc = addresses.get("adb"), addresses.get("novnc")
    return KnownEmulator(
        name=name,
        kind=kind,
        ports=[ServiceAddress(service=service, address=address) for service, address in addresses.items()],
        adb=AdbAccess(address=adb) if adb else None,
        novnc=ScreenAccess(address=f"http://{novnc}/") if novnc else None,
    )


def all_known(bench: Workbench) -> list[KnownEmulator]:
    """Every emulator of the lab's record. Reads the record only."""
    return [
        known(name, found.kind, bench.addresses(name)) for name, found in bench.record().instances.items()
    ]


def reached(service: str, address: str) -> str:
    """What a person does with an address."""
    if service == "adb":
        return f"adb connect {address}"
    return f"http://{address}/" if service in ("novnc", "appium") else address


def look(bench: Workbench, name: str, seconds: float = _ANSWER_SECONDS) -> Sight:
    """Look at everything once. Raises LabError when L1 cannot be reached.

    `seconds` is how long an L2 that is not Android may take to answer.
    """
    instance, emulator = bench.instance(name), bench.emulator(name)
    if bench.machine_state() is not State.RUNNING:
        return Sight(name, instance.kind, bench.addresses(name))
    container = emulator.state(bench.guest)
    if emulator.android:
        health = cast(AndroidEmulator, emulator).health(bench.reach(name))
    else:
        health = _of_l2(bench, name, container, seconds)
    return Sight(name, instance.kind, bench.addresses(name), container, health)


def _of_l2(bench: Workbench, name: str, container: ContainerState, seconds: float) -> Health:
    """An emulator that is not Android is usable when its L2 passes the ladder's own rungs."""
    checks = [Check("container", container.running, "running" if container.running else "not running")]
    if not container.exists:
        return Health(False, False, tuple(checks), (), ())
    site = bench.site(boot_seconds=seconds, instance=name)
    site.nested_seconds = site.adb_seconds = seconds
    site.boot_id = bench.guest.read("/proc/sys/kernel/random/boot_id").strip()
    for rung in _RUNGS:
        try:
            observation = rung(site)
        except LabError as error:  # it shows nothing (yet)
            checks.append(Check(rung.name, None, error.what))
            break
        checks.append(Check(rung.name, observation.ok, observation.observed))
        if not observation.ok:
            break
    ok = {check.name: check.ok for check in checks}
    rungs = [rung.name for rung in _RUNGS]
    took = site.booted.seconds if site.booted else None
    return Health(
        booted=bool(ok.get(nested.boot.name)),
        usable=bool(ok.get(nested.adb.name)),
        checks=tuple(checks),
        timeline=(BootStage(nested.boot.name, took),),
        # A container that ended shows nothing by that: what L2 said is what counts.
        diagnoses=tuple(_refuted(check) for check in checks if check.name in rungs and check.ok is False),
    )


def _refuted(check: Check) -> Diagnosis:
    what, *lines = check.observed.splitlines()
    hint = "`invoke lab.validate` looks at what is below it"
    return Diagnosis(check.name, what, tuple(lines), hint, final=True, refutes=True)


def _without_secrets(health: Health) -> Health:
    diagnoses = tuple(
        replace(diagnosis, lines=tuple(redact.clean(line) for line in diagnosis.lines))
        for diagnosis in health.diagnoses
    )
    return replace(health, diagnoses=diagnoses)

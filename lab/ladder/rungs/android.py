"""android.boot and android.usable: Android itself, as lab sees it over ADB and in a browser's place."""

from __future__ import annotations

from typing import Any, Literal, cast

from lab.deadline import Deadline
from lab.emulators.protocol import ABSENT, AndroidEmulator, Check, Diagnosis, Health
from lab.engines.protocol import SOFTWARE, EngineFacts
from lab.errors import BlockedError, InconclusiveError
from lab.ladder.model import Observation
from lab.ladder.site import Site
from lab.probes.kvm import KvmFacts

Key = Literal["android_hardware", "android_nested", "android_shadow"]


def boot(site: Site) -> Observation:
    """Android says over ADB, from the L2 this lab launched, that its boot has completed."""
    health = _waited(site, "booted")
    site.facts["android.boot"] = {
        **health.facts,
        "double": bool(health.facts.get("double")),
        "timeline": [{"name": one.name, "seconds": one.seconds} for one in health.timeline],
        "diagnoses": [_as_fact(one) for one in health.diagnoses],
    }
    took = next((one.seconds for one in health.timeline if one.name == "boot-completed"), None)
    after = f" after {took:.0f} s" if took is not None else ""
    release = health.facts.get("release", "of an unknown release")
    return _observation(
        health,
        health.booted,
        "sys.boot_completed is 1 over the host's ADB, from the L2 that was given this launch's nonce",
        f"Android {release}: sys.boot_completed=1{after}",
    )


def usable(site: Site) -> Observation:
    """Package manager, launcher, screen and noVNC work, and nothing says that it does not respond."""
    health = _waited(site, "usable")
    site.facts["android.usable"] = {
        "checks": [{"name": one.name, "ok": one.ok, "observed": one.observed} for one in health.checks],
        "timeline": [{"name": one.name, "seconds": one.seconds} for one in health.timeline],
        "diagnoses": [_as_fact(one) for one in health.diagnoses],
        "double": bool(health.facts.get("double")),
    }
    seen = ", ".join(f"{one.name}: {one.observed}" for one in health.checks if one.name in _SHOWN)
    return _observation(
        health,
        health.usable,
        "the package manager answers, a launcher came up, nothing is said not to respond, the screen "
        "is of more than one colour, and noVNC shows it",
        seen,
    )


_SHOWN = ("packages", "launcher", "screen", "novnc")


def seconds(site: Site) -> float:
    """How long Android may take here."""
    return site.android_seconds[deadline_key(site.kvm, site.engine_facts)]


def deadline_key(kvm: KvmFacts | None, engine: EngineFacts | None) -> Key:
    """Which deadline is Android's, by what L1 is and what its processor offers KVM.

    On an L1 that is no VM, the processor runs Android as it would on a desk. Nested, it is about
    four times as slow with EPT or NPT and far slower without, and so is anything emulated.
    """
    emulated = engine is not None and (engine.acceleration in SOFTWARE or engine.nesting == "emulated")
    if emulated or (kvm is not None and kvm.facts.cpu.nested_paging is False):
        return "android_shadow"
    if kvm is not None and kvm.facts.cpu.hypervisor == "":
        return "android_hardware"
    return "android_nested"


def _waited(site: Site, stage: Literal["booted", "usable"]) -> Health:
    return _emulator(site).wait(site.tools.reach(), stage, None, Deadline.after(seconds(site)))


def _observation(health: Health, reached: bool, expected: str, observed: str) -> Observation:
    """What was reached, or what refutes it. Raises BlockedError or InconclusiveError for all else."""
    stand_in = "a test double that is not Android: " if health.facts.get("double") else ""
    if reached:
        beside = "".join(f"; {one.name}: {one.what}" for one in health.diagnoses)
        return Observation(ok=True, expected=expected, observed=f"{stand_in}{observed}{beside}")
    refuting = next((one for one in health.diagnoses if one.refutes), None)
    if refuting is not None:
        return Observation(
            ok=False, expected=expected, observed=f"{stand_in}{_described(refuting)}", hint=refuting.hint
        )
    found = next(iter(health.diagnoses), None)
    error = BlockedError if found is not None and found.name in ABSENT else InconclusiveError
    what = _described(found) if found else f"not reached: {_missing(health.checks)}"
    raise error(f"{stand_in}{what}", hint=found.hint if found else "`invoke emulator.status` looks again")


def _described(diagnosis: Diagnosis) -> str:
    return "\n".join((f"{diagnosis.name}: {diagnosis.what}", *diagnosis.lines))


def _missing(checks: tuple[Check, ...]) -> str:
    missing = [f"{one.name}: {one.observed}" for one in checks if not one.ok and one.name != "status"]
    return "; ".join(missing) or "nothing is known to be missing"


def _as_fact(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "name": diagnosis.name,
        "what": diagnosis.what,
        "lines": list(diagnosis.lines),
        "final": diagnosis.final,
        "refutes": diagnosis.refutes,
    }


def _emulator(site: Site) -> AndroidEmulator:
    if site.emulator is None or not site.emulator.android:
        raise ValueError("these rungs are skipped when there is no Android")
    return cast(AndroidEmulator, site.emulator)

"""android.boot and android.usable: Android itself, as lab sees it over ADB and in a browser's place."""

from __future__ import annotations

from typing import Literal, cast

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError
from lab.emulators.protocol import MISSING_RESOURCES, AndroidEmulator, Check, Diagnosis, Health
from lab.ladder.facts import AndroidBoot, AndroidUse
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import nested
from lab.ladder.site import Site, no_android
from lab.model.domain import Claim, Observation

_CLAIMS = frozenset({Claim.ANDROID, Claim.THEORY})
_SHOWN = ("packages", "launcher", "screen", "novnc")
"""The checks that the observation names."""


def _boot(site: Site) -> Observation:
    """Android says over ADB, from the L2 this lab launched, that its boot has completed."""
    health = _waited(site, "booted")
    site.facts.android_boot = AndroidBoot.model_validate(
        {
            **health.facts,
            "double": _is_double(health),
            "timeline": health.timeline,
            "diagnoses": health.diagnoses,
        }
    )
    took = next((stage.seconds for stage in health.timeline if stage.name == "boot-completed"), None)
    after = f" after {took:.0f} s" if took is not None else ""
    release = health.facts.get("release", "of an unknown release")
    return _observation(
        health,
        health.booted,
        "sys.boot_completed is 1 over the host's ADB, from the L2 that was given this launch's nonce",
        f"Android {release}: sys.boot_completed=1{after}",
    )


boot = Rung(
    "android.boot",
    "Android in L2 reports that its boot completed.",
    _boot,
    Layer.NESTED,
    "Android",
    needs=(nested.adb,),
    required_by=_CLAIMS,
    decisive=True,
    shows=("container.log",),
    why_not=no_android,
)


def _usable(site: Site) -> Observation:
    """Package manager, launcher, screen and noVNC work, and nothing says that it does not respond."""
    health = _waited(site, "usable")
    site.facts.android_usable = AndroidUse.model_validate(
        {
            "checks": health.checks,
            "timeline": health.timeline,
            "diagnoses": health.diagnoses,
            "double": _is_double(health),
        }
    )
    shown = ", ".join(f"{check.name}: {check.observed}" for check in health.checks if check.name in _SHOWN)
    return _observation(
        health,
        health.usable,
        "the package manager answers, a launcher came up, nothing is said not to respond, the screen "
        "is of more than one colour, and noVNC shows it",
        shown,
    )


usable = Rung(
    "android.usable",
    "Android can be used: an app starts in it and its screen can be seen.",
    _usable,
    Layer.NESTED,
    "Its use",
    needs=(boot,),
    required_by=_CLAIMS,
    decisive=True,
    why_not=no_android,
)


def _waited(site: Site, stage: Literal["booted", "usable"]) -> Health:
    return _emulator(site).wait(site.tools.reach(), stage, None, Deadline.after(site.boot_wait()))


def _observation(health: Health, reached: bool, expected: str, observed: str) -> Observation:
    """What was reached, or what refutes it. Raises BlockedError or InconclusiveError for all else."""
    stand_in = "a test double that is not Android: " if _is_double(health) else ""
    if reached:
        beside = "".join(f"; {diagnosis.name}: {diagnosis.what}" for diagnosis in health.diagnoses)
        return Observation(ok=True, expected=expected, observed=f"{stand_in}{observed}{beside}")
    refuting = next((diagnosis for diagnosis in health.diagnoses if diagnosis.refutes), None)
    if refuting is not None:
        return Observation(
            ok=False, expected=expected, observed=f"{stand_in}{_described(refuting)}", hint=refuting.hint
        )
    likely = next(iter(health.diagnoses), None)
    error = BlockedError if likely is not None and likely.name in MISSING_RESOURCES else InconclusiveError
    what = _described(likely) if likely else f"not reached: {_missing(health.checks)}"
    raise error(f"{stand_in}{what}", hint=likely.hint if likely else "`invoke emulator.status` looks again")


def _described(diagnosis: Diagnosis) -> str:
    return "\n".join((f"{diagnosis.name}: {diagnosis.what}", *diagnosis.lines))


def _missing(checks: tuple[Check, ...]) -> str:
    missing = [
        f"{check.name}: {check.observed}" for check in checks if not check.ok and check.name != "status"
    ]
    return "; ".join(missing) or "nothing is known to be missing"


def _is_double(health: Health) -> bool:
    return bool(health.facts.get("double"))


def _emulator(site: Site) -> AndroidEmulator:
    if site.emulator is None or not site.emulator.android:
        raise ValueError("these rungs are skipped when there is no Android")
    return cast(AndroidEmulator, site.emulator)

"""What a look means: each check, and whether Android has booted and can be used. Pure.

`booted` rests on sys.boot_completed as Android itself says it over ADB on the host's loopback, from
the L2 that was given this launch's nonce. The container's own word is shown, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.emulators.docker_android import timeline
from lab.emulators.docker_android.boots import of_this_boot
from lab.emulators.docker_android.contract import Version
from lab.emulators.docker_android.diagnosis import Case, diagnose
from lab.emulators.docker_android.sighting import Android, Inside, Novnc, Sighting
from lab.emulators.protocol import MISSING_RESOURCES, Check, Health

USABLE = ("boot", "packages", "launcher", "responding", "screen", "novnc")
"""The checks that must hold for Android to be usable, beside those below them."""


def health(
    looks: Sequence[Sighting],
    stages: Mapping[str, float],
    *,
    nonce: str,
    image: str = "",
    version: Version | None = None,
    late: bool = False,
    telemetry_off: bool = True,
) -> Health:
    """The health that all looks so far, oldest first, show. `looks` is not empty.

    `stages` are those known of this start and of L2's boot in it, `late` says that the time is up.
    """
    last = looks[-1]
    known = timeline.merged(stages, timeline.reached(last))
    checks = _checks(last, known, nonce)
    by_name = {check.name: check for check in checks}
    booted = by_name["boot"].ok is True
    diagnoses = diagnose(Case(looks, late, telemetry_off, known))
    lacks = any(diagnosis.name in MISSING_RESOURCES for diagnosis in diagnoses)
    return Health(
        booted=booted,
        usable=booted and not lacks and all(by_name[name].ok for name in USABLE),
        checks=checks,
        timeline=timeline.timeline(known),
        diagnoses=diagnoses,
        facts=_facts(looks, image, version or Version()),
    )


def booted(sighting: Sighting, nonce: str) -> bool:
    """Whether this look alone shows that the L2 with this nonce has booted."""
    android = sighting.android
    return android is not None and _is_ours(android, nonce) and android.completed


def _checks(last: Sighting, known: Mapping[str, float], nonce: str) -> tuple[Check, ...]:
    return (
        *_of_container(last.inside),
        *_of_android(last.android, known, nonce),
        _novnc(last.novnc),
        Check("status", None, f"the container itself says {last.inside.status or 'nothing'}"),
    )


def _of_container(inside: Inside) -> tuple[Check, ...]:
    state, emulator, holder = inside.state, inside.emulator, inside.holder
    if not state.exists:
        container = "there is none"
    elif state.running:
        container = "running"
    else:
        container = f"ended with exit code {state.exit_code}"
    return (
        Check("container", state.running, container),
        Check(
            "emulator",
            emulator is not None,
            f"{' '.join(emulator.command[:1])} -accel {inside.acceleration or '(not said)'}"
            if emulator
            else "no process",
        ),
        Check(
            "kvm",
            holder is not None and inside.made_vm,
            f"pid {holder.pid} has /dev/kvm open, and {'a' if inside.made_vm else 'no'} VM"
            if holder
            else "nobody has /dev/kvm open",
        ),
    )


def _of_android(android: Android | None, known: Mapping[str, float], nonce: str) -> tuple[Check, ...]:
    if android is None:
        names = ("adb", "nonce", "boot", "packages", "launcher", "responding", "screen")
        return tuple(Check(name, None, "not looked at") for name in names)
    ours = _is_ours(android, nonce)
    return (
        Check("adb", android.online, "answers" if android.online else _adb_error(android)),
        Check("nonce", ours if android.online else None, _nonce(android, ours)),
        Check(
            "boot",
            (ours and android.completed) if android.online else None,
            f"sys.boot_completed={int(android.completed)}" if android.online else "unknown",
        ),
        Check("packages", android.packages_answer, _packages(android)),
        _launcher(android, known),
        Check(
            "responding",
            None if android.focus is None else not android.not_responding,
            f"{android.not_responding} does not respond" if android.not_responding else "no such dialog",
        ),
        _screen(android),
    )


def _is_ours(android: Android, nonce: str) -> bool:
    return android.online and bool(nonce) and android.nonce == nonce


def _adb_error(android: Android) -> str:
    return f"{android.adb or 'no answer'}{f': {android.error}' if android.error else ''}"


def _nonce(android: Android, ours: bool) -> str:
    if not android.online:
        return "unknown"
    if ours:
        return "as given at launch"
    return "another" if android.nonce else "none: L2 has restarted, or was not waited for"


def _packages(android: Android) -> str:
    if android.packages is None:
        return "not asked"
    return next(iter(android.packages.splitlines()), "no answer")


def _launcher(android: Android, known: Mapping[str, float]) -> Check:
    """It has the focus, or had it in this boot, and now an app has."""
    if android.focus is None:
        return Check("launcher", None, "not asked")
    observed = f"the focus is on {android.focus or 'nothing'}"
    return Check("launcher", android.launcher or ("launcher" in known and android.app), observed)


def _screen(android: Android) -> Check:
    screen = android.screen
    if screen is None:
        return Check("screen", None, android.screen_error or "not looked at")
    size = f"{screen.width}x{screen.height}"
    return Check("screen", not screen.one_colour, f"{size}{', of one colour' if screen.one_colour else ''}")


def _novnc(novnc: Novnc | None) -> Check:
    if novnc is None:
        return Check("novnc", None, "not looked at")
    observed = novnc.error or f"HTTP {novnc.page}, {novnc.banner.strip() or 'no VNC server'}"
    return Check("novnc", novnc.works, observed)


def _facts(looks: Sequence[Sighting], image: str, version: Version) -> dict[str, str]:
    """What is known of image and Android; Android's own words before the tag's."""
    last = looks[-1]
    booted = reversed(of_this_boot(looks))
    android = next((look.android for look in booted if look.android and look.android.properties), None)
    properties = android.properties if android else {}
    facts = {
        "image": image,
        "image_id": last.inside.state.image,
        "docker_android": version.release,
        "device": last.inside.state.facts.get("device", ""),
        "release": properties.get("ro.build.version.release", "") or version.android,
        "api": properties.get("ro.build.version.sdk", "") or str(version.api or ""),
        "fingerprint": properties.get("ro.build.fingerprint", ""),
        "kernel": android.kernel if android else "",
        "double": "yes" if is_double(looks) else "",
    }
    return {name: value for name, value in facts.items() if value}


def is_double(looks: Sequence[Sighting]) -> bool:
    """Whether the image or its L2 says of itself that it only stands for Android."""
    return any(look.inside.double or (look.android is not None and look.android.double) for look in looks)

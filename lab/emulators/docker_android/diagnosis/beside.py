"""What is wrong beside Android itself, and no failure of it."""

from __future__ import annotations

import re

from lab.emulators.docker_android.contract import READY, TELEMETRY_LINES
from lab.emulators.docker_android.diagnosis.case import Case, lines
from lab.emulators.protocol import Diagnosis

_WATCHER = re.compile(r"is checked \d+ times!|exited: (?:device|docker-appium) \(")
_TELEMETRY = re.compile("|".join(re.escape(line) for line in TELEMETRY_LINES))


def dead_watcher(case: Case) -> Diagnosis | None:
    inside = case.last.inside
    if not inside.watcher_ended or not case.alive:
        return None
    says = f"; its status says {inside.status}" if inside.status and inside.status != READY else ""
    return Diagnosis(
        "dead-watcher",
        f"the container's own watcher has ended, and the emulator runs on{says}",
        lines(case.words, _WATCHER),
        "no failure by itself: lab looks for itself, and never relies on that status",
    )


def novnc_dead(case: Case) -> Diagnosis | None:
    novnc = case.last.novnc
    if novnc is None or novnc.works or not case.settled or not case.last.inside.state.running:
        return None
    steady = case.steady(lambda look: None if look.novnc is None else not look.novnc.works)
    return Diagnosis(
        "novnc-dead",
        "the page that shows the screen does not work",
        (novnc.error or f"HTTP {novnc.page}, the VNC server says {novnc.banner!r}",),
        "vnc_*.log in the evidence; Android itself may be well",
        final=steady,
    )


def telemetry(case: Case) -> Diagnosis | None:
    shown = lines(case.words, _TELEMETRY) if case.telemetry_off else ()
    if not shown:
        return None
    return Diagnosis(
        "telemetry",
        "the container reports to its authors, although told not to",
        shown,
        "cut it off from the network, or use another image",
    )

"""Ways to fail, recognised in what was seen, each named with the lines that show it. Pure.

Two words on each: *final*, waiting longer will not mend it; *refutes*, it is evidence against the
rung. Time that ran out never refutes, and neither does what lab, its settings or the network did.
docs/android.md has the table.
"""

from __future__ import annotations

from lab.emulators.docker_android.diagnosis import android, beside, boot, emulator
from lab.emulators.docker_android.diagnosis.boot import LOOP
from lab.emulators.docker_android.diagnosis.case import Case, Look
from lab.emulators.docker_android.diagnosis.emulator import LOST
from lab.emulators.protocol import Diagnosis

__all__ = ["LOOP", "LOST", "Case", "diagnose"]

_OF_THE_EMULATOR: tuple[Look, ...] = (
    emulator.out_of_memory,
    emulator.container_exited,
    emulator.unaccelerated,
    emulator.disk_full,
    emulator.no_kvm,
    emulator.kvm_denied,
    emulator.kvm_unusable,
    emulator.kvm_error,
    emulator.emulator_crashed,
    emulator.no_emulator,
)
_OF_ANDROID: tuple[Look, ...] = (
    boot.boot_loop,
    boot.adb,
    android.packages_dead,
    android.not_responding,
    android.black_screen,
    android.no_launcher,
    boot.slow,
)
_BESIDE: tuple[Look, ...] = (beside.novnc_dead, beside.dead_watcher, beside.telemetry)


def diagnose(case: Case) -> tuple[Diagnosis, ...]:
    """Everything that is wrong with what was seen, the most telling first; nothing when all is well."""
    if not case.seen:
        return ()
    # What ended the emulator explains all that is missing behind it.
    diagnoses = _first(_OF_THE_EMULATOR, case) or _all(_OF_ANDROID, case)
    return diagnoses + _all(_BESIDE, case)


def _all(looks: tuple[Look, ...], case: Case) -> tuple[Diagnosis, ...]:
    return tuple(diagnosis for look in looks if (diagnosis := look(case)) is not None)


def _first(looks: tuple[Look, ...], case: Case) -> tuple[Diagnosis, ...]:
    return _all(looks, case)[:1]

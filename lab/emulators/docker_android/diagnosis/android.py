"""What is wrong with an Android whose boot has ended."""

from __future__ import annotations

from collections.abc import Callable

from lab.emulators.docker_android.diagnosis.case import Case
from lab.emulators.docker_android.sighting import Android
from lab.emulators.docker_android.words import LINES
from lab.emulators.protocol import Diagnosis


def not_responding(case: Case) -> Diagnosis | None:
    android = case.last.android
    if android is None or not android.not_responding:
        return None
    return _lasting(
        case,
        lambda shown: None if shown.focus is None else bool(shown.not_responding),
        "anr",
        f"Android says that {android.not_responding} does not respond",
        (f"mCurrentFocus: {android.focus}",),
        "a slow machine has such dialogs; the image's own watcher dismisses some",
    )


def _lasting(
    case: Case,
    shows: Callable[[Android], bool | None],
    name: str,
    what: str,
    shown: tuple[str, ...],
    hint: str,
) -> Diagnosis:
    """A diagnosis that counts once all looks show it for long enough; None is one that cannot tell."""
    steady = case.steady(lambda look: None if look.android is None else shows(look.android))
    return Diagnosis(name, what, shown, hint, final=steady, refutes=steady)


def packages_dead(case: Case) -> Diagnosis | None:
    android = case.last.android
    if not case.completed or android is None or android.packages_answer is not False:
        return None
    return _lasting(
        case,
        lambda shown: None if shown.packages is None else not shown.packages_answer,
        "package-manager-dead",
        "the boot has ended, and the package manager does not answer",
        tuple((android.packages or "it said nothing").splitlines()[-LINES:]),
        "logcat.txt in the evidence",
    )


def no_launcher(case: Case) -> Diagnosis | None:
    android = case.last.android
    if not case.completed or android is None or android.focus is None or android.not_responding:
        return None
    if android.launcher or "launcher" in case.stages:
        return None
    return _lasting(
        case,
        lambda shown: None if shown.focus is None else not shown.launcher,
        "no-launcher",
        "the boot has ended, and no launcher has come up",
        (f"mCurrentFocus: {android.focus or 'null'}",),
        "`invoke emulator.screenshot` shows what there is",
    )


def black_screen(case: Case) -> Diagnosis | None:
    android = case.last.android
    if not case.completed or android is None or android.screen is None or not android.screen.one_colour:
        return None
    return _lasting(
        case,
        lambda shown: None if shown.screen is None else shown.screen.one_colour,
        "black-screen",
        "the boot has ended, and Android's screen is of one colour",
        (f"screencap: {android.screen.width}x{android.screen.height}, one colour",),
        "the emulator's graphics may have failed: device.stdout.log in the evidence",
    )

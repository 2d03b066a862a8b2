"""Why Android's boot has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lab.emulators.docker_android import words
from lab.emulators.docker_android.boots import Boot
from lab.emulators.docker_android.diagnosis.case import Case
from lab.emulators.docker_android.sighting import Sighting
from lab.emulators.docker_android.words import LINES
from lab.emulators.protocol import Diagnosis

LOOP = "boot-loop"
"""Its kernel ran, again and again: nothing against KVM, and no Android."""
_LOOP_BOOTS = 3
"""Kernels seen one after the other, none of which ended its boot, that make a loop of it."""
_QUIET_SHARE = 0.25
"""Of the time waited: when nothing changed in the last part of it, the boot is stuck rather than slow."""


def boot_loop(case: Case) -> Diagnosis | None:
    boots, lines = _boots(case.seen)
    if boots < 2 or case.completed:
        return None
    return Diagnosis(
        LOOP,
        f"Android's kernel started {boots} times, and no boot ended",
        lines[-LINES:],
        "logcat.txt in the evidence ends with what came before",
        final=boots >= _LOOP_BOOTS,
        refutes=boots >= _LOOP_BOOTS,
    )


def _boots(looks: Sequence[Sighting]) -> tuple[int, tuple[str, ...]]:
    """How many kernels answered one after the other without one ending its boot, and how that was seen."""
    count, boot = 0, Boot()
    lines: list[str] = []
    for look in looks:
        kernel = look.kernel
        if kernel is None:
            continue
        boot, another = boot.next(kernel)
        if kernel.completed:
            count, lines = 0, []
        elif another or count == 0:
            count += 1
            name = f"boot {kernel.boot_id}" if kernel.boot_id else "a boot"
            lines.append(f"{look.seconds:.0f} s: {name}, up {boot.uptime:.0f} s")
    return count, tuple(lines)


def adb(case: Case) -> Diagnosis | None:
    android = case.last.android
    if android is None or android.online or not case.alive:
        return None
    inside = case.last.inside.adb
    shown = tuple(line for line in (android.error, inside and f"in the container: {inside}") if line)
    if android.adb == "unauthorized":
        return Diagnosis(
            "adb-unauthorized",
            "Android does not accept lab's ADB key",
            shown,
            "use an image with google_apis rather than google_apis_playstore",
            final=True,
            refutes=False,
        )
    # A port that nobody is behind is taken for a daemon that is offline, too: only one that ever spoke is.
    if android.adb == "offline" and (not case.late or _ever_spoke(case)):
        return Diagnosis(
            "adb-offline",
            "Android's ADB daemon is there and does not talk yet",
            shown,
            "it may just be booting",
            final=False,
            refutes=False,
        )
    if not case.late:
        return None
    return Diagnosis(
        "no-adb",
        f"the emulator runs, and its ADB {'answers no more' if _ever_spoke(case) else 'never answered'}",
        (*shown, *words.reason(case.last.inside.device_log)),
        "the VM may just be slow: raise the deadline for this acceleration",
    )


def _ever_spoke(case: Case) -> bool:
    """Whether anything was heard of L2's ADB daemon, here or by the container's own adb."""
    return any(look.inside.adb or (look.android is not None and look.android.online) for look in case.seen)


def slow(case: Case) -> Diagnosis | None:
    """A boot that has not ended in its time: still moving, or not."""
    if not case.late or case.completed or not case.alive:
        return None
    since = _last_change(case.seen)
    quiet = case.last.at - since.at
    if quiet <= _QUIET_SHARE * (case.last.at - case.seen[0].at):
        return Diagnosis(
            "slow-boot",
            f"the boot has not ended after {case.age:.0f} s, and goes on",
            (f"last change {quiet:.0f} s before", *words.reason(case.last.inside.device_log)),
            "raise the deadline for this acceleration",
            final=False,
            refutes=False,
        )
    return Diagnosis(
        "stuck-boot",
        f"nothing has changed for {quiet:.0f} s of {case.age:.0f} s",
        tuple(case.last.inside.device_log.splitlines()[-LINES:]),
        "logcat.txt and device.stdout.log in the evidence",
    )


def _last_change(looks: Sequence[Sighting]) -> Sighting:
    """The look that last saw something other than the one before. Both must have seen the whole."""
    full = [look for look in looks if look.android is not None and look.android.properties] or list(looks)
    changed = full[0]
    for before, after in pairwise(full):
        if after.sign_of_life != before.sign_of_life:
            changed = after
    return changed

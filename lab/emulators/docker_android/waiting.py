"""Waiting: for L2's ADB daemon from within, and for a stage of Android from the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from lab.core.deadline import POLL_SECONDS, Deadline, pause
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError, LabError
from lab.core.steps import Step
from lab.emulators.container import Container
from lab.emulators.docker_android import within
from lab.emulators.docker_android.diagnosis import LOOP, Case, diagnose
from lab.emulators.docker_android.looking import Watch
from lab.emulators.docker_android.sighting import Sighting
from lab.emulators.protocol import (
    MISSING_RESOURCES,
    Diagnosis,
    Health,
    NestedFailedError,
    NestedLostError,
    NestedProof,
    Reach,
)
from lab.guest.ssh import Guest

_LOOK_AGAIN_SECONDS = 15.0
"""Between two looks at everything while nothing seems to change: a look takes a slow VM's time."""
_NO_REASON_TO_STOP = {"booted": {"novnc-dead"}, "usable": set[str]()}


def for_adb(
    guest: Guest, container: Container, watch: Watch, deadline: Deadline, *, with_kvm: bool = True
) -> None:
    """Come back when the container's own adb has its emulator online.

    With `with_kvm` one that was told to do without KVM is not waited for, nor believed.
    Raises NestedFailedError when KVM says that it does not run L2, NestedLostError when the emulator is gone
    by a signal or nothing says why, BlockedError when something is absent, InconclusiveError when it failed
    in another way, DeadlineError.
    """
    while not _online(guest, watch, deadline, with_kvm):
        if deadline.passed:
            raise _late(watch, deadline, with_kvm)
        if _runs(watch) and (at := within.await_adb(guest, container, deadline)) is not None:
            watch.reached("adb-online", at)
        pause(POLL_SECONDS)


def for_proof(guest: Guest, container: Container, watch: Watch, deadline: Deadline) -> NestedProof:
    """What L2 says of itself through the container's own adb, as soon as that has it online.

    `seconds` is from its monitor's start until then. Raises as for_adb does.
    """
    while True:
        _online(guest, watch, deadline)
        if _runs(watch):
            nonce = watch.seen[-1].inside.state.facts.get("nonce", "")
            answer = within.ask(guest, container, nonce, deadline)
            if answer.android is not None:  # first: when it came online is told of this boot
                watch.heard(answer.android)
            if answer.at is not None:
                watch.reached("adb-online", answer.at)
            elif answer.ago is not None:
                watch.reached("adb-online", watch.now - answer.ago)
            if answer.proof is not None:
                return replace(answer.proof, seconds=monitor_to_adb(watch))
        if deadline.passed:
            raise _late(watch, deadline)
        pause(POLL_SECONDS)


def _online(guest: Guest, watch: Watch, deadline: Deadline, with_kvm: bool = True) -> bool:
    """Look at the container: whether its adb has L2 online. Raises when that will not be."""
    online = watch.container(guest, ask_adb=True).inside.adb == "device"
    final = next((diagnosis for diagnosis in _diagnosed(watch, deadline, with_kvm) if diagnosis.final), None)
    if final and (not online or final.name in MISSING_RESOURCES):
        raise failure(final)
    return online


def _diagnosed(watch: Watch, deadline: Deadline, with_kvm: bool) -> tuple[Diagnosis, ...]:
    return diagnose(Case(list(watch.seen), late=deadline.passed, stages=watch.stages, with_kvm=with_kvm))


def _late(watch: Watch, deadline: Deadline, with_kvm: bool = True) -> LabError:
    diagnoses = _diagnosed(watch, deadline, with_kvm)
    if diagnoses and diagnoses[0].final and watch.seen[-1].inside.adb != "device":
        return failure(diagnoses[0])  # some words count only once the time is up
    named = f": {diagnoses[0].name}, {diagnoses[0].what}" if diagnoses else ""
    return DeadlineError(
        f"L2 did not answer the container's own adb in {deadline.seconds:.0f} s{named}",
        hint=diagnoses[0].hint if diagnoses else "`invoke lab.logs --source container` shows its log",
        tail="\n".join(diagnoses[0].lines) if diagnoses else "",
    )


def _runs(watch: Watch) -> bool:
    return watch.seen[-1].inside.emulator is not None


def failure(diagnosis: Diagnosis) -> LabError:
    """A final diagnosis as the error it is to the ladder."""
    what = f"{diagnosis.name}: {diagnosis.what}"
    tail = "\n".join(diagnosis.lines)
    error: type[LabError] = NestedLostError if diagnosis.again else InconclusiveError
    if diagnosis.refutes and diagnosis.name != LOOP:
        error = NestedFailedError
    elif diagnosis.name in MISSING_RESOURCES:
        error = BlockedError
    return error(what, hint=diagnosis.hint, tail=tail)


def monitor_to_adb(watch: Watch) -> float | None:
    """Seconds from the start of L2's monitor until its ADB daemon was seen to answer.

    None when either was not seen, when L2 restarted meanwhile, which makes it no boot's time, and when
    L1's clock was set in between: both are told by it.
    """
    if watch.clock_was_set or watch.restarted:
        return None
    last = watch.seen[-1].inside if watch.seen else None
    monitor = (last.holder or last.emulator) if last else None
    online = watch.stages.get("adb-online")
    if last is None or monitor is None or online is None:
        return None
    return round(max(0.0, online - (monitor.started - last.started)), 2)


def until(
    stage: Literal["booted", "usable"],
    reach: Reach,
    container: Container,
    watch: Watch,
    judge: Callable[[bool], Health],
    step: Step | None,
    deadline: Deadline,
) -> Health:
    """Look until the stage is reached, a final diagnosis is made or time is up; the last look's health."""
    reported: set[str] = set()
    watch.everything(reach)
    while True:
        looked = time.monotonic()
        _give_nonce(reach, container, watch.seen[-1])
        health = judge(False)
        _tell(health, reported, step)
        reached = health.booted if stage == "booted" else health.usable
        final = {diagnosis.name for diagnosis in health.diagnoses if diagnosis.final}
        if reached or final - _NO_REASON_TO_STOP[stage]:
            watch.tell(reach.guest)
            return health
        if deadline.passed:
            return judge(True)
        before = _changing(watch.seen[-1])
        while time.monotonic() - looked < _LOOK_AGAIN_SECONDS and not deadline.passed:
            pause(min(2 * POLL_SECONDS, max(0.01, deadline.left)))
            if _changing(watch.glance(reach)) != before:
                break
        watch.everything(reach)


def _give_nonce(reach: Reach, container: Container, look: Sighting) -> None:
    """An L2 that restarted in this launch's container has forgotten it, and is still this launch's."""
    android, given = look.android, look.inside.state.facts.get("nonce", "")
    if android is not None and android.online and not android.nonce and given and given == reach.nonce:
        within.give_nonce(reach.guest, container, given)


def _changing(look: Sighting) -> tuple[object, ...]:
    """What a glance can see change."""
    android = look.android
    return (android.adb, android.boot_id, android.animation, android.completed) if android else ()


def _tell(health: Health, reported: set[str], step: Step | None) -> None:
    for stage in health.timeline:
        if step is not None and stage.seconds is not None and stage.name not in reported:
            step.note(f"{stage.name} after {stage.seconds:.1f} s")
    reported |= {stage.name for stage in health.timeline if stage.seconds is not None}
    for diagnosis in health.diagnoses:
        if step is not None and diagnosis.name not in reported:
            step.note(f"{diagnosis.name}: {diagnosis.what}")
        reported.add(diagnosis.name)

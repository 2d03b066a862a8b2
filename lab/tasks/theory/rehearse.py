"""theory.rehearse: the theory's own cell on an emulated PC, for any Linux machine."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.core.errors import BlockedError
from lab.experiments.turns import AGAIN
from lab.host.packages import Purpose
from lab.images import canary, debian
from lab.records.evidence import Run
from lab.rehearsal import course, image, models, rehearsal
from lab.rehearsal.image import SystemImage
from lab.rehearsal.pc import PcFacts
from lab.rehearsal.rehearsal import MEMORY_MIB, WORKSHOP, Rehearsal, Workshop
from lab.rehearsal.workdisk import CACHE, DISK_GIB, STATE, Job
from lab.tasks.theory import rehearse_answer
from lab.tasks.theory.rehearse_result import RehearsalResult
from lab.workflow import mirror
from lab.workflow.selection import CANARY
from lab.workflow.session import Reply, Session

_NAME = "rehearsal"
_NEEDED_MIB = MEMORY_MIB + 512
_DISK_BYTES = 8 << 30
"""For the work disk and what the emulator writes beside it."""
_ENGINE = ("--engine", "virtualbox", "--json")
_CLIMB = (("lab.up", *_ENGINE), ("lab.destroy", "--json"))
_EXPERIMENT = (("theory.experiment", *_ENGINE),)
SETTINGS = {
    "LAB_STATE_DIR": str(STATE),
    "LAB_CACHE_DIR": str(CACHE),
    "LAB_IMAGE": "debian-13",
    "LAB_INSTALL": "never",
    "LAB_EMULATOR__KIND": CANARY,
    "LAB_VM__MEMORY_MIB": "1024",
    "LAB_VM__CPUS": "1",
    "LAB_VM__DISK_GIB": str(DISK_GIB),
    "LAB_VIRTUALBOX__ALLOW_NESTED_ON_HOST": "true",
    # Exits from the VM are what costs most there. Two knobs of VirtualBox spare them: readings
    # of the time stamp counter do not exit, and its timer interrupts at 500 Hz instead of 16 kHz.
    "LAB_VIRTUALBOX__EXTRA_DATA": json.dumps(
        ["VBoxInternal/TM/TSCMode=RealTSCOffset", "VBoxInternal/TM/HostHzMax=500"]
    ),
    "LAB_DEADLINES__BOOT": "1500",
    "LAB_DEADLINES__SSH": "600",
    "LAB_DEADLINES__DOCKER": "2400",
    "LAB_DEADLINES__STOP": "300",
}
"""A processor emulated in software runs VirtualBox, which runs the VM: all is small and patient."""


def _images(session: Session) -> tuple[SystemImage, list[Path]]:
    """The PC's system disk, and folders of what lab needs in it; built as far as they are not cached."""
    cache = session.images
    system, guest, emulator = image.find(cache), debian.find(cache), canary.find(cache)
    if system is None or guest is None:
        session.need({"build-image"})
    if emulator is None:
        archive = mirror.debian(session)
        with session.steps.step("image.build", CANARY) as step:
            emulator = canary.build(cache, step, archive)
    if guest is None:
        with session.steps.step("image.build", "debian-13") as step:
            guest = debian.build(cache, step)
    if system is None:
        with session.steps.step("image.build", _NAME) as step:
            system = image.build(cache, step)
    return system, [guest, emulator.folder]


@dataclass(frozen=True)
class RehearsalTools:
    """What a rehearsal is done with; the defaults are the real ones."""

    workshop: Workshop = WORKSHOP
    images: Callable[[Session], tuple[SystemImage, list[Path]]] = _images


TOOLS = RehearsalTools()


def rehearse(
    session: Session,
    cpu: str = "haswell",
    experiment: bool = False,
    tools: RehearsalTools = TOOLS,
) -> Reply:
    """Run lab in an emulated PC; the exit code is nesting's verdict, or with `experiment` that task's own.

    Whatever comes of it, its evidence is kept and the PC is gone. Raises UsageError, BlockedError: it
    cannot be done here; LabError, InterruptedByUser.
    """
    pc = _must_be_possible(session, cpu, tools.workshop)
    session.again = AGAIN
    started, began = datetime.now(UTC), time.monotonic()
    run = Run(session.store.evidence_folder, _NAME, "rehearse")
    session.evidence = run.path
    session.steps.subscribe(run.steps)
    system, images = tools.images(session)
    name = rehearsal.name(pc)
    plan = Rehearsal(
        cpu=cpu,
        job=Job(_EXPERIMENT if experiment else _CLIMB, SETTINGS | {"LAB_REHEARSAL__PC": name}),
        system=system,
        images=images,
        milestones=course.EXPERIMENT if experiment else course.UP,
        seconds=session.settings.rehearsal.deadline,
        folder=session.settings.state_dir / "rehearsals",
        cache=session.images,
        bochs=session.settings.rehearsal.bochs,
        workshop=tools.workshop,
    )
    done = rehearsal.rehearse(plan, run, session.steps)
    with session.steps.step("rehearsal.report") as step:
        read = rehearse_answer.experiment if experiment else rehearse_answer.climb
        answer = read(done, name, run.path)
        step.result = str(answer.report or "no page")
    result = RehearsalResult(
        cpu=cpu,
        pc=pc,
        image=system.id,
        extension=models.processor(cpu).extension,
        rehearsed=done,
        answer=answer,
        started=started,
        seconds=round(time.monotonic() - began, 3),
        evidence=run.path,
    )
    run.json("rehearse.json", result.document())
    if done.interrupted:
        raise done.interrupted
    return Reply(result.document(), result.show, answer.code)


def _must_be_possible(session: Session, cpu: str, workshop: Workshop) -> PcFacts:
    """What would emulate the PC; nothing is made. Raises UsageError, BlockedError."""
    models.processor(cpu)
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise BlockedError(
            "an emulated PC is for Linux on x86_64: what it boots is built by this machine",
            hint="rehearse on such a machine; `invoke theory.explain` says what is known of this one",
        )
    purposes: set[Purpose] = {"rehearsal-amd" if cpu in models.QEMU else "rehearsal"}
    session.need(purposes)
    pc = rehearsal.facts(cpu, session.settings.rehearsal.bochs, workshop)
    available = session.factories.host().memory_available >> 20
    if available < _NEEDED_MIB:
        raise BlockedError(
            f"a rehearsal takes {_NEEDED_MIB} MiB of memory, and {available} MiB is available",
            hint="close something; another rehearsal that runs takes as much",
        )
    session.factories.require_space(session.settings.state_dir, _DISK_BYTES, "a rehearsal")
    return pc

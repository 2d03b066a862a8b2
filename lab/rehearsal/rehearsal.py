"""One rehearsal: a work disk is made, an emulated PC does the job on it, and its results are taken."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core import bounds, files, proc
from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import CommandError, InconclusiveError, InterruptedByUser, LabError
from lab.core.steps import Steps
from lab.images import cache as images
from lab.images.uses import Use
from lab.records.evidence import Run
from lab.rehearsal import choice, course, place, workdisk
from lab.rehearsal.course import Course, Milestone
from lab.rehearsal.image import SystemImage
from lab.rehearsal.pc import EmulatedPc, PcFacts, PcSpec, powered
from lab.rehearsal.relay import Relay
from lab.rehearsal.workdisk import Job, TaskResult

VERB = "theory.rehearse"
MEMORY_MIB = 2048
"""Of the PC. Bochs 2.7 has no more."""

_COMMAND_LINE = "console=ttyS0 quiet panic=0 mitigations=off tsc=reliable no5lvl cryptomgr.notests=1"
"""`panic=0`: a kernel that panicked stays where it is, and does not begin the job anew."""
_NAMES = {"bochs": "Bochs", "qemu": "QEMU"}
_MAKE_SECONDS = 900.0
_READ_SECONDS = 300.0
_LEAST_BYTES = 64 << 20
_KINDS = ("haswell", "amd")
"""A processor of each kind of PC."""


@dataclass(frozen=True)
class Workshop:
    """What makes the PC and its work disk, and takes the results from the disk."""

    pc: Callable[[PcSpec, str], EmulatedPc] = choice.pc
    """The PC of a specification; the program Bochs, should it be one."""
    make_disk: Callable[[Path, Job, Sequence[Path], Deadline], None] = workdisk.make
    read_disk: Callable[[Path, Path, Job, Deadline], list[TaskResult]] = workdisk.read


WORKSHOP = Workshop()
"""The real one."""


@dataclass(frozen=True)
class Rehearsal:
    """What is to be rehearsed, and where.

    `folder` holds all rehearsals that are at work, `cache` lab's images.
    """

    cpu: str
    job: Job
    system: SystemImage
    images: Sequence[Path]
    """Folders of the cache, for the work disk."""
    milestones: Sequence[Milestone]
    seconds: float
    """How long the PC may run."""
    folder: Path
    cache: Path
    bochs: str
    workshop: Workshop = WORKSHOP


@dataclass(frozen=True)
class Rehearsed:
    """What came of it. `trouble` is why the PC did not end by switching itself off, None where it did."""

    results: list[TaskResult]
    trouble: LabError | None
    seconds: float
    """From power-on."""

    @property
    def interrupted(self) -> InterruptedByUser | None:
        """The trouble, where it is that the user ended it."""
        return self.trouble if isinstance(self.trouble, InterruptedByUser) else None


def facts(cpu: str, bochs: str, workshop: Workshop = WORKSHOP) -> PcFacts:
    """What emulates a PC with that processor. Raises UsageError, BlockedError: there is none."""
    return workshop.pc(_spec("", Path(), cpu), bochs).facts()


def name(pc: PcFacts) -> str:
    """The PC in words, as the lab in it is told what it runs on."""
    return f"{_NAMES.get(pc.emulator, pc.emulator)} {pc.version}, {pc.processor}"


def rehearse(plan: Rehearsal, run: Run, steps: Steps) -> Rehearsed:
    """Do it; what comes of it is in the evidence folder `run` before anything is removed.

    A PC that ends badly or late, and an interruption, are its `trouble`, not raised. Raises BlockedError,
    UsageError: it cannot be done; and LabError: its results cannot be had.
    """
    _sweep(plan, steps)
    with place.held(plan.folder, VERB) as folder:
        for image in (plan.system.id, *(image.name for image in plan.images)):
            images.mark_use(plan.cache, image, Use(uuid=folder.name, lab=VERB, folder=folder))
        disk = folder / "work.raw"
        with steps.step("rehearsal.disk", "the project, its images and the job") as step:
            with course.beating(steps, step, lambda: "the disk is written; then the PC boots"):
                _make(disk, plan)
            step.result = f"{disk.stat().st_blocks * 512 >> 20} MiB"
        pc = plan.workshop.pc(_spec(folder.name, folder / place.PC, plan.cpu, plan.system, disk), plan.bochs)
        began = time.monotonic()
        trouble = _trouble(pc, plan, run, steps)
        seconds = time.monotonic() - began
        try:
            with cleaning_up() if trouble else contextlib.nullcontext():
                results = _results(pc, plan, run, steps, trouble)
        except (InterruptedByUser, KeyboardInterrupt):
            trouble = trouble or InterruptedByUser("interrupted")
            with cleaning_up():  # it is a matter of seconds, and all that is left of the PC's work
                results = _results(pc, plan, run, steps, trouble)
    return Rehearsed(results, trouble, round(seconds, 3))


def _spec(
    mark: str, folder: Path, cpu: str, system: SystemImage | None = None, disk: Path | None = None
) -> PcSpec:
    """A PC that is to be started has a system; one that is only asked, or ended, has none."""
    kernel, initramfs = (system.kernel, system.initramfs) if system else (Path(), Path())
    drive = system.disk if system else None
    return PcSpec(mark, folder, cpu, MEMORY_MIB, kernel, initramfs, _COMMAND_LINE, drive, disk)


def _sweep(plan: Rehearsal, steps: Steps) -> None:
    """Ends and removes what killed rehearsals left, of whatever kind."""

    def end(mark: str, folder: Path) -> None:
        for cpu in _KINDS:
            plan.workshop.pc(_spec(mark, folder, cpu), plan.bochs).end()

    for folder in place.sweep(plan.folder, VERB, end, steps.note):
        steps.note(f"a rehearsal that was killed ({folder}) is removed")


def _make(disk: Path, plan: Rehearsal) -> None:
    try:
        plan.workshop.make_disk(disk, plan.job, plan.images, Deadline.after(_MAKE_SECONDS))
    except CommandError:
        files.require_space(disk.parent, _LEAST_BYTES, "a rehearsal's disk")  # it may be why
        raise


def _follow(pc: EmulatedPc, plan: Rehearsal, steps: Steps) -> None:
    """Have the PC do its job, shown as it goes. Raises as EmulatedPc.start and wait do."""
    way, deadline = Course(plan.milestones), Deadline.after(plan.seconds)
    with steps.step("rehearsal.pc", name(pc.facts())) as step, powered(pc):
        relay = Relay(steps, step, [task[0] for task in plan.job.tasks], way.passed)
        try:
            with course.beating(steps, step, lambda: course.describe(relay.now, step.seconds, way)):
                pc.wait(deadline, relay.hear)
        except LabError as error:
            relay.end(error.what)
            raise
        relay.end()
        step.result = "switched itself off"


def _trouble(pc: EmulatedPc, plan: Rehearsal, run: Run, steps: Steps) -> LabError | None:
    """Why the PC did not end as it should, with its last words; None where it did."""
    try:
        _follow(pc, plan, steps)
    except InterruptedByUser as error:
        return error
    except InconclusiveError as error:
        if not error.tail and pc.serial.exists():  # of what the relay made of its words
            error.tail = proc.tail(bounds.read_text(pc.serial))
        error.evidence = [str(run.path / place.PC)]
        return error
    except KeyboardInterrupt:
        return InterruptedByUser("interrupted")
    return None


def _results(
    pc: EmulatedPc, plan: Rehearsal, run: Run, steps: Steps, trouble: LabError | None
) -> list[TaskResult]:
    """Take the evidence out of the PC, which is off. What it scratched on this machine goes first.

    A work disk that cannot be read is kept in the evidence as it is. Raises LabError then, unless there is
    a trouble to tell of already.
    """
    with steps.step("rehearsal.evidence") as step:
        for log in pc.logs:
            with contextlib.suppress(OSError):  # as of a full disk; the work disk is what counts
                run.copy(log, f"{place.PC}/{log.name}")
        shutil.rmtree(pc.spec.folder, ignore_errors=True)
        disk = pc.spec.disk or Path()
        try:
            with course.beating(steps, step, lambda: "the work disk is read"):
                results = plan.workshop.read_disk(disk, run.path, plan.job, Deadline.after(_READ_SECONDS))
        except InterruptedByUser:
            raise
        except (LabError, OSError) as error:
            kept = run.path / disk.name
            disk.replace(kept)
            why = error.what if isinstance(error, LabError) else str(error)
            if trouble is None:
                raise LabError(
                    f"the results of the emulated PC cannot be read: {why}",
                    hint="its work disk is kept: `debugfs` reads it",
                    evidence=[kept],
                ) from error
            step.result = f"the work disk cannot be read ({why}), and is kept"
            return [TaskResult(task, None, {}, "") for task in plan.job.tasks]
        step.result = f"in {run.path}"
    return results

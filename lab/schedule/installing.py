"""Writing a scheduler's files, making them known, and taking away what lab wrote and nothing else."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from lab.core import files, proc
from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import BlockedError, CommandError, InterruptedByUser, LabError, UsageError
from lab.schedule.launchd import Launchd
from lab.schedule.plan import MARKER, SERVICE_MARKER, Plan, Scheduler, Unit
from lab.schedule.systemd import Systemd

_SECONDS = 60.0
BY_SYSTEM: dict[str, type[Scheduler]] = {"Darwin": Launchd, "Linux": Systemd}
"""By what `platform.system()` says."""


def scheduler(system: str = "") -> Scheduler:
    """What schedules on `system`, or on this one. Raises BlockedError where lab knows none."""
    name = system or platform.system()
    if name not in BY_SYSTEM:
        raise BlockedError(
            f"lab knows no scheduler of {name}", hint="have `bin/invoke nightly.run` run by cron"
        )
    return BY_SYSTEM[name]()


def is_ours(path: Path) -> bool:
    """Whether lab wrote this file: one of its markers is in it."""
    try:
        content = path.read_bytes()
        return any(marker.encode() in content for marker in (MARKER, SERVICE_MARKER))
    except FileNotFoundError:
        return False


def installed(scheduler: Scheduler) -> list[Path]:
    """The files of lab's that are in place."""
    return [path for path in scheduler.paths() if is_ours(path)]


def install(scheduler: Scheduler, plan: Plan, say: Callable[[str], None]) -> bool:
    """Write and activate. True when that changed anything; run again, it converges.

    UsageError for a file that is not lab's in the place of one of its own; BlockedError without the
    scheduler, where its nights could not run, and when it refuses. Whatever ends it, an interruption and a
    deadline too, what was written is taken away again, and what was installed before is activated anew.
    """
    _need_tool(scheduler)
    if why := scheduler.hindrance(plan):
        raise BlockedError(f"no night could run by {scheduler.name}: {why}", hint=scheduler.remedy)
    units = scheduler.units(plan)
    for unit in units:
        _must_be_ours(unit.path)
    different = [unit for unit in units if not unit.path.exists() or unit.path.read_bytes() != unit.content]
    if not different and state(scheduler)[0]:
        return False
    before = {unit.path: unit.path.read_bytes() if unit.path.exists() else None for unit in units}
    if not plan.log.parent.exists():
        files.private_folder(plan.log.parent)
    if scheduler.name == Launchd.name:
        files.open_private(plan.log, "ab").close()  # launchd would make one for everybody to read
    try:
        if any(before.values()):
            _try_each(scheduler.deactivate(), say)  # launchd keeps to the old file otherwise
        for unit in different:
            _write(unit, say)
        for command in scheduler.activate():
            say(f"runs {' '.join(command)}")
            proc.run(command, deadline=Deadline.after(_SECONDS))
    except BaseException as error:
        with cleaning_up():
            lost = _put_back(scheduler, before, say)
        if not isinstance(error, CommandError):
            raise
        raise BlockedError(
            f"{scheduler.name} does not take it: {error.what}{lost}",
            tail=error.tail,
            hint=scheduler.advice(),
        ) from error
    return True


def uninstall(scheduler: Scheduler, say: Callable[[str], None]) -> bool:
    """Deactivate and remove. True when there was something. Only files with lab's marker are removed.

    One that is at work although its files are gone is ended, too. LabError when the scheduler still has
    it, or cannot be asked: the files then stay, for a night that goes on must not look removed.
    """
    ours = installed(scheduler)
    there = shutil.which(scheduler.tool) is not None
    if not ours:
        strangers = [str(path) for path in scheduler.paths() if path.exists()]
        if strangers:
            raise UsageError(
                f"{strangers[0]} was not made by lab: it is left alone",
                hint="remove it by hand if you mean to",
            )
        if not (there and state(scheduler)[0]):
            return False
    if there:
        _try_each(scheduler.deactivate(), say)
        _must_be_gone(scheduler)
    for path in ours:
        say(f"removes {path}")
        path.unlink()
        files.sync_folder(path.parent)
    if there:
        _try_each(scheduler.after_removal(), say)
    return True


def state(scheduler: Scheduler) -> tuple[bool | None, str]:
    """Whether the scheduler knows of it, and what it says, as lines. None when it could not be asked.

    Raises InterruptedByUser.
    """
    try:
        done = proc.run(scheduler.query(), deadline=Deadline.after(_SECONDS), check=False)
    except InterruptedByUser:
        raise
    except LabError as error:
        return None, error.what
    known = True if done.status == 0 else False if done.status in scheduler.absent else None
    return known, proc.tail(done.out or done.err, 30)


def _need_tool(scheduler: Scheduler) -> None:
    if shutil.which(scheduler.tool) is None:
        raise BlockedError(
            f"`{scheduler.tool}` is not here: nothing runs tasks by {scheduler.name}",
            hint="`nightly.install --print` shows the files; or have `bin/invoke nightly.run` run by cron",
        )


def _must_be_gone(scheduler: Scheduler) -> None:
    known, words = state(scheduler)
    if known is False:
        return
    why = "still has the night" if known else "could not be asked whether it still has the night"
    by_hand = "; ".join(" ".join(command) for command in scheduler.deactivate())
    raise LabError(
        f"{scheduler.name} {why}: nothing was removed",
        tail=words,
        evidence=installed(scheduler),
        hint=f"run this again from a session of your own, logged in where the nights run; by hand: {by_hand}",
    )


def _must_be_ours(path: Path) -> None:
    if path.exists() and not is_ours(path):
        raise UsageError(
            f"{path} is there and was not made by lab: it is left alone",
            hint="move it away, then run this again",
        )


def _write(unit: Unit, say: Callable[[str], None]) -> None:
    say(f"writes {unit.path}")
    files.write_atomic(unit.path, unit.content, files.PUBLIC)


def _try_each(commands: list[list[str]], say: Callable[[str], None]) -> None:
    """Run them; one that fails had nothing to do."""
    for command in commands:
        say(f"runs {' '.join(command)}")
        proc.run(command, deadline=Deadline.after(_SECONDS), check=False)


def _put_back(scheduler: Scheduler, before: dict[Path, bytes | None], say: Callable[[str], None]) -> str:
    """Make it as it was before an installation that failed; what could not be, to end a sentence.

    What was at work until now is at work again: a change that fails must not end the nights.
    """
    try:
        _try_each(scheduler.deactivate(), say)  # some of the new may be at work already
    finally:
        _undo(before)
    _try_each(scheduler.activate() if any(before.values()) else scheduler.after_removal(), say)
    if not any(before.values()) or state(scheduler)[0]:
        return ""
    lost = "the nights of before could not be activated again: `nightly.install` once more does"
    say(lost)
    return f"; {lost}"


def _undo(before: dict[Path, bytes | None]) -> None:
    for path, content in before.items():
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            files.write_atomic(path, content, files.PUBLIC)

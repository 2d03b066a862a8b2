"""nightly.install, nightly.uninstall, nightly.status: the night in the system's own scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lab import schedule
from lab.core import lock
from lab.documents.nights import NightlySchedule
from lab.history import Night
from lab.nights.past import opened
from lab.nights.showing import lock_file, log_file, show
from lab.schedule import Plan, Scheduler, installing
from lab.schedule.plan import environment
from lab.workflow.session import ROOT, Reply, Session

_MARGIN_MINUTES = 30
"""What a night may take beyond its budget: tidying up, telling."""

_WRITTEN = {True: "installed", False: "written, but not active", None: "written; it cannot be asked"}
_GONE = {
    True: "active, though its files are gone: `nightly.uninstall` ends it",
    False: "not installed",
    None: "not installed; it cannot be asked",
}
"""By whether the scheduler knows of it: what to say when lab's files are there, and when they are not."""


def install(session: Session, at: str = "03:30", print_only: bool = False) -> Reply:
    """Have a night run every day at `at` (HH:MM, local time). `print_only` shows the files, writes none."""
    scheduler = schedule.scheduler()
    plan = plan_for(session, at)
    if print_only:
        units = [{"path": str(unit.path), "content": unit.content.decode()} for unit in scheduler.units(plan)]
        hindrance = scheduler.hindrance(plan)
        notes = [f"it could not run: {hindrance}", scheduler.remedy] if hindrance else []
        document = _document(scheduler, "print", False, notes, units=units).as_json()

        def tell(console: Console) -> None:
            for unit in units:
                console.print(f"# {unit['path']}", markup=False, highlight=False, soft_wrap=True)
                for line in str(unit["content"]).splitlines():
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
                console.print()
            for note in notes:
                console.print(note, markup=False, highlight=False, soft_wrap=True)

        return Reply(document, tell)
    notes = []
    with session.steps.step("nightly.install", scheduler.name) as step:
        changed = schedule.install(scheduler, plan, lambda said: _say(step.note, notes, said))
        step.result = "installed" if changed else "was installed already"
    notes += [f"every day at {at}", scheduler.advice()]
    return _reply(scheduler, "install", changed, notes)


def uninstall(session: Session) -> Reply:
    """Take the night out of the scheduler. Nights already recorded stay."""
    scheduler = schedule.scheduler()
    notes: list[str] = []
    with session.steps.step("nightly.uninstall", scheduler.name) as step:
        changed = schedule.uninstall(scheduler, lambda said: _say(step.note, notes, said))
        step.result = "removed" if changed else "nothing was installed"
    return _reply(scheduler, "uninstall", changed, notes or ["nothing was installed"])


def status(session: Session) -> Reply:
    """Whether a night is installed, what the scheduler says, whether one runs, how the last one ended."""
    scheduler = schedule.scheduler()
    files = installing.installed(scheduler)
    known, said = installing.state(scheduler)
    held = lock.holder(lock_file(session))
    last: Night | None = None
    if session.history_file.exists():
        with opened(session) as past:
            last = next((night for night in past.nights(2) if night.verdict), None)
    document = _document(
        scheduler,
        "status",
        False,
        said.splitlines(),
        active=known,
        running=held,
        last=last.as_dict() if last else None,
    )

    def tell(console: Console) -> None:
        where = ", ".join(str(path) for path in files)
        state = _WRITTEN[known] if files else _GONE[known]
        lines = [f"{scheduler.name}: {state}" + (f" ({where})" if where else "")]
        lines += [f"  {line}" for line in said.splitlines() if files or known]
        if held:
            lines.append(f"a night runs since {held.since} (pid {held.pid})")
        lines += ["", "last night:"] if last else ["no night has been"]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if last:
            show(console, last)

    return Reply(document.as_json(), tell)


def plan_for(session: Session, at: str) -> Plan:
    """What is to be installed: lab's own program, its folder, the least of an environment."""
    hour, minute = schedule.parse_at(at)
    return Plan(
        program=program(),
        folder=ROOT,
        hour=hour,
        minute=minute,
        minutes=session.settings.nightly.budget_minutes + _MARGIN_MINUTES,
        log=log_file(session),
        environment=environment(),
    )


def program() -> Sequence[str]:
    """bin/invoke, which makes its environment."""
    return [str(ROOT / "bin" / "invoke"), "nightly.run"]


def _say(note: Any, notes: list[str], said: str) -> None:
    notes.append(said)
    note(said)


def _document(
    scheduler: Scheduler, action: str, changed: bool, notes: Sequence[str], **more: Any
) -> NightlySchedule:
    """`more` are its other members, where they are not empty."""
    ours: list[Path] = installing.installed(scheduler)
    members = {"active": None, "units": (), "running": None, "last": None} | more
    return NightlySchedule(
        scheduler=scheduler.name,
        action=action,
        changed=changed,
        installed=[str(path) for path in ours],
        notes=notes,
        **members,
    )


def _reply(scheduler: Scheduler, action: str, changed: bool, notes: Sequence[str]) -> Reply:
    def tell(console: Console) -> None:
        for line in notes:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return Reply(_document(scheduler, action, changed, notes).as_json(), tell)

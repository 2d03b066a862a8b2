"""nightly.install, nightly.uninstall, nightly.status: the night in the system's own scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from lab.core import lock
from lab.core.steps import Step
from lab.documents.nights import NightlySchedule
from lab.nights.keeping import lock_file, opened
from lab.nights.showing import show
from lab.schedule import installing
from lab.schedule.plan import Plan, Scheduler, environment, parse_at
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
    scheduler = installing.scheduler()
    plan = _plan(session, at)
    if print_only:
        return _printed(scheduler, plan)
    with session.steps.step("nightly.install", scheduler.name) as step:
        notes: list[str] = []
        changed = installing.install(scheduler, plan, _saying(step, notes))
        step.result = "installed" if changed else "was installed already"
    return _reply(scheduler, "install", [*notes, f"every day at {at}", scheduler.advice()], changed=changed)


def uninstall(session: Session) -> Reply:
    """Take the night out of the scheduler. Nights already recorded stay."""
    scheduler = installing.scheduler()
    with session.steps.step("nightly.uninstall", scheduler.name) as step:
        notes: list[str] = []
        changed = installing.uninstall(scheduler, _saying(step, notes))
        step.result = "removed" if changed else "nothing was installed"
    return _reply(scheduler, "uninstall", notes or ["nothing was installed"], changed=changed)


def status(session: Session) -> Reply:
    """Whether a night is installed, what the scheduler says, whether one runs, how the last one ended."""
    scheduler = installing.scheduler()
    files = installing.installed(scheduler)
    known, words = installing.state(scheduler)
    running = lock.holder(lock_file(session))
    last = None
    if session.history_file.exists():
        with opened(session) as history:
            last = next((night for night in history.nights(2) if night.verdict), None)
    where = ", ".join(str(path) for path in files)
    state = _WRITTEN[known] if files else _GONE[known]
    lines = [f"{scheduler.name}: {state}" + (f" ({where})" if where else "")]
    lines += [f"  {line}" for line in words.splitlines() if files or known]
    lines += [f"a night runs since {running.since} (pid {running.pid})"] if running else []
    lines += ["", "last night:"] if last else ["no night has been"]

    def tell(console: Console) -> None:
        _print(console, lines)
        if last:
            show(console, last)

    members = {"active": known, "running": running, "last": last.as_dict() if last else None}
    return _reply(scheduler, "status", words.splitlines(), tell, **members)


def _printed(scheduler: Scheduler, plan: Plan) -> Reply:
    """What would be installed, and what would keep it from running."""
    units = [{"path": str(unit.path), "content": unit.content.decode()} for unit in scheduler.units(plan)]
    hindrance = scheduler.hindrance(plan)
    notes = [f"it could not run: {hindrance}", scheduler.remedy] if hindrance else []
    lines = [line for unit in units for line in (f"# {unit['path']}", *unit["content"].splitlines(), "")]
    return _reply(scheduler, "print", notes, lambda console: _print(console, [*lines, *notes]), units=units)


def _plan(session: Session, at: str) -> Plan:
    """What is to be installed: bin/invoke, which makes its environment, and the least it needs."""
    hour, minute = parse_at(at)
    return Plan(
        program=[str(ROOT / "bin" / "invoke"), "nightly.run"],
        folder=ROOT,
        hour=hour,
        minute=minute,
        minutes=session.settings.nightly.budget_minutes + _MARGIN_MINUTES,
        log=session.settings.state_dir / "nightly.log",
        environment=environment(),
    )


def _saying(step: Step, notes: list[str]) -> Callable[[str], None]:
    """Takes each thing that is done: it is shown at once, and is a note of the answer."""

    def say(text: str) -> None:
        notes.append(text)
        step.note(text)

    return say


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _reply(
    scheduler: Scheduler,
    action: str,
    notes: Sequence[str],
    show: Callable[[Console], None] | None = None,
    **members: Any,
) -> Reply:
    """nightly.schedule/1, with those of its members that are not empty; a person reads the notes."""
    empty = {"changed": False, "active": None, "units": (), "running": None, "last": None}
    document = NightlySchedule(
        scheduler=scheduler.name,
        action=action,
        installed=[str(path) for path in installing.installed(scheduler)],
        notes=notes,
        **empty | members,
    )
    return Reply(document.as_json(), show or (lambda console: _print(console, notes)))

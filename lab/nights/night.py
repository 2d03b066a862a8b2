"""nightly.run: a fresh VM, n looks at it, a comparison; a record of the night whatever happens in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lab import __version__
from lab.core import lock
from lab.core.deadline import cleaning_up
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.core.files import write_atomic
from lab.documents.nights import NightlyRun
from lab.history import Ending, History, HistoryError, Night
from lab.host import facts as host_facts
from lab.ladder.rungs import nested
from lab.ladder.verdict import exit_code
from lab.model.domain import Verdict
from lab.nights import following, past, telling
from lab.nights.clock import Budget, WallClock
from lab.nights.judging import Judged, judge
from lab.nights.looks import COMPARE, UP, VALIDATE, Looks
from lab.nights.showing import NAME, lock_file, show
from lab.records.evidence import Run
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow import preflight, selection
from lab.workflow.climbing import check_claim
from lab.workflow.destroy import destroy
from lab.workflow.session import Reply, Session

MARK = "made-by-nightly"
"""In the folder of a lab that nightly.run made: no other is destroyed."""


def run(session: Session, claim: str = "") -> Reply:
    """One night, now. The exit code is that of its verdict; BusyError while another night runs.

    The night is in the history before anything of it happens. HistoryError when it cannot be, or
    when what it found could not be written down in the end: that is never a success.
    """
    check_claim(claim)
    session.again = "what was found is on record; the same command is another night"
    with lock.hold(lock_file(session), "nightly.run", "the night"):
        return _Night(session, claim).go()


class _Writes:
    """Writes to the history, in order. One that fails (a full disk) is tried again with the next."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self.fault: HistoryError | None = None

    def __call__(self, write: Callable[[], None]) -> None:
        self._waiting.append(write)
        self.again()

    def again(self) -> None:
        self.fault = None
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.pop(0)
        except HistoryError as error:
            self.fault = error


class _Night:
    def __init__(self, session: Session, claim: str) -> None:
        self.session, self.claim = session, claim
        self.settings = session.settings.nightly
        self.notes: list[str] = []
        self.writes = _Writes()
        self.last_claim = ""
        """What the last night was about: so is one that breaks before it is about anything."""
        self.made = False
        """Whether the lab of that name is this night's."""

    def go(self) -> Reply:
        try:
            with contextlib.ExitStack() as stack:
                folder = Run(self.session.store.evidence_folder, NAME, "night")
                history = stack.enter_context(History(self.session.history_file))
                key = self._begin(history, folder)
                opened = stack.pop_all()
        except InterruptedByUser:
            raise  # before the night was on record there was none; after it, the next one tells of it
        except (LabError, OSError) as error:
            # Nothing can be written down, but somebody can still be told.
            telling.unrecorded(self.session, error)
            if isinstance(error, LabError):
                raise
            raise HistoryError(f"the night could not be recorded: {error}") from error
        with opened:
            self.session.evidence = folder.path
            self.session.steps.subscribe(folder.steps)
            return self._through(history, key, folder)

    def _begin(self, history: History, folder: Run) -> int:
        past.close_dead(history, "its command was killed, or crashed")
        self.last_claim = history.last_claim()
        return history.begin(
            planned=self._planned,
            evidence=str(folder.path),
            boot_id=host_facts.read().boot_id or "",
            lab_version=__version__,
        )

    @property
    def _planned(self) -> int:
        return self.settings.runs + int(self.settings.compare)

    def _through(self, history: History, key: int, folder: Run) -> Reply:
        clock, began = WallClock(), time.monotonic()
        budget = Budget(60.0 * self.settings.budget_minutes)
        looks = Looks(self.session, folder, budget)
        before = _folders(self.session)
        stopped: BaseException | None = None
        missing, why = 0, ""
        try:
            self._catch_up(history, key)
            with budget:
                missing = self._look(looks, lambda: self._record(history, key, looks, clock))
            why = f"the budget of {self.settings.budget_minutes} minutes was spent"
        except (InterruptedByUser, KeyboardInterrupt) as interruption:
            stopped, why = interruption, f"the night was stopped: {interruption}"
            missing = max(1, self._left(looks))  # whatever it was at: a night that was stopped is not whole
        except Exception as error:  # the lab is removed and the night recorded, whatever broke
            missing, why = max(1, self._left(looks)), f"the night broke: {error!r}"
        clock.look()
        if doubt := _doubt(clock, looks):
            self.notes.append(doubt)
        judged = judge(looks.runs, missing, why, self.claim, self.last_claim, doubt)
        try:
            self._end(history, key, judged, time.monotonic() - began, clock.jump)
        finally:
            stopped = self._clean_up() or stopped
        for note in self.notes:
            self.writes(partial(history.note, key, note))
        self.writes.again()  # the lab's disk is gone: there may be room now
        with contextlib.suppress(OSError):  # still a full disk: nothing of it may cost the answer
            folder.json("night.json", {"night": key, "folders": sorted(_folders(self.session) - before)})
        if stopped is not None:
            raise stopped
        if self.writes.fault is not None:
            self._tell_unrecorded(history, key, self.writes.fault)
            raise self.writes.fault
        return self._afterwards(history, key, folder)

    def _tell_unrecorded(self, history: History, key: int, fault: HistoryError) -> None:
        began: Night | None = None
        with contextlib.suppress(HistoryError):  # what cannot be written can be read, as a rule
            began = history.night(key)
        telling.unrecorded(self.session, fault, began)

    def _catch_up(self, history: History, key: int) -> None:
        """Tell of nights that were told to nobody. What goes wrong in it costs this night nothing."""
        try:
            following.catch_up(self.session, history, key)
        except InterruptedByUser:
            raise
        except Exception as error:
            self.notes.append(f"a night before could not be told: {error}")

    def _look(self, looks: Looks, record: Callable[[], None]) -> int:
        """All climbs, each recorded as it ends. Returns how many were planned and did not happen."""
        first = looks.take(UP, self._up)
        record()
        nothing = looks.up is None or looks.up["access"] is None
        if nothing and first.verdict not in (Verdict.CONFIRMED, Verdict.REFUTED) and not looks.cut:
            return 0  # no VM to look at again, and nothing seen that a second look could bear out
        while len(looks.runs) < self.settings.runs:
            if looks.cut or looks.budget.spent:
                return self._left(looks)
            looks.take(VALIDATE, lambda session: validate(session, NAME, self.claim))
            record()
        booted = any(row.rung == nested.boot.name and row.status == "passed" for row in looks.runs[-1].rungs)
        if not self.settings.compare or not booted:
            return 0  # nothing was to be compared, or there is nothing to compare
        if looks.cut or looks.budget.spent:
            self.notes.append("nothing was compared: the budget was spent")
            return 1
        compared = looks.take(COMPARE, lambda session: validate(session, NAME, self.claim, compare=True))
        record()
        if why := compared.error or looks.uncompared:
            self.notes.append(f"nothing was compared: {why}")
        return 0

    def _left(self, looks: Looks) -> int:
        """How many looks were planned and did not happen."""
        return self.settings.runs - sum(run.kind != COMPARE for run in looks.runs)

    def _record(self, history: History, key: int, looks: Looks, clock: WallClock) -> None:
        found = looks.runs[-1]
        clock.look()
        self.writes(lambda: history.add(key, found))

    def _up(self, session: Session) -> Reply:
        selection.planned(session, NAME)  # settings that are refused cost nothing that is there
        self._remove(session)
        preflight.before_anything(session)
        lab = session.store.place(NAME)
        write_atomic(lab.folder / MARK, "")
        self.made = True
        return up(session, NAME)

    def _remove(self, session: Session) -> None:
        """Destroy the lab a night left. BlockedError for one that somebody else made."""
        lab = session.store.find(NAME)
        if lab is None:
            return
        if not (lab.folder / MARK).exists():
            raise BlockedError(
                f"there is a lab {NAME} that nightly.run did not make: it is left alone",
                hint=f"`invoke lab.destroy --name {NAME}`, if nobody needs it",
            )
        destroy(session, NAME)

    def _clean_up(self) -> BaseException | None:
        """Remove the night's lab. Returns the interruption that ended this, if one did."""
        if not self.made:
            return None
        session = replace(self.session, steps=self.session.steps.branch(), evidence=None, interactive=False)
        try:
            with cleaning_up():
                self._remove(session)
        except (Exception, KeyboardInterrupt) as error:  # the night has its verdict; what is left is said
            what = error.what if isinstance(error, LabError) else repr(error)
            self.notes.append(f"the lab {NAME} could not be removed: {what}")
            return error if isinstance(error, InterruptedByUser | KeyboardInterrupt) else None
        return None

    def _end(self, history: History, key: int, judged: Judged, seconds: float, jump: float) -> None:
        ending = Ending(
            verdict=judged.verdict.value,
            claim=judged.claim,
            reason=judged.reason,
            seconds=round(seconds, 3),
            claims=judged.claims,
            cell=judged.cell,
            clock_jump=jump,
            notes=self.notes,
        )
        self.notes = []
        self.writes(lambda: history.end(key, ending))

    def _afterwards(self, history: History, key: int, folder: Run) -> Reply:
        done = following.follow(self.session, history, key)
        past.prune(self.session, history)
        with contextlib.suppress(OSError):
            folder.json("history.json", done.as_dict())
        answer = NightlyRun(night=done.as_dict()).as_json()
        return Reply(answer, lambda console: show(console, done), exit_code(Verdict(done.verdict)))


def _doubt(clock: WallClock, looks: Looks) -> str:
    """Why nothing seen in the night settles anything: this machine's clock and L1's do not fit together."""
    if clock.jump:
        return f"the wall clock moved by {clock.jump:+.0f} s during the night: it was set, or the host slept"
    if looks.vm_clock_jump:
        moved = looks.vm_clock_jump
        return f"the VM's clock moved by {moved:+.0f} s during the night: it was set, or the VM stood still"
    return ""


def _folders(session: Session) -> set[str]:
    """The evidence folders there are of nights."""
    base = session.store.evidence_folder / NAME
    return {path.name for path in base.iterdir() if path.is_dir()} if base.is_dir() else set()

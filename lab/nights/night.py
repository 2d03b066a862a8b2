"""One night: a fresh VM, several looks at it, a comparison; a record of it whatever happens.

A run that meets a full disk is blocked, and says which folder and what to do. The night is blocked if every
run was, else inconclusive. What could not be written to the history is written once the night's VM is gone,
since that makes room: then the verdict does not change. Where that fails as well, the command ends blocked
(exit code 11), the night is told over its channels, and the next night closes it as inconclusive.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lab import __version__
from lab.core import system
from lab.core.errors import InterruptedByUser, LabError
from lab.documents.nights import NightlyRun
from lab.history.database import HistoryError
from lab.history.model import ClimbRecord, Night
from lab.history.store import History
from lab.ladder.rungs import nested
from lab.ladder.verdict import exit_code
from lab.model.domain import Verdict
from lab.nights import following, keeping, keys, telling
from lab.nights.clock import Budget, WallClock
from lab.nights.judging import judge
from lab.nights.keeping import NAME
from lab.nights.likeness import Likeness
from lab.nights.nightlab import NightLab
from lab.nights.runs import COMPARE, UP, VALIDATE, NightRuns
from lab.nights.showing import show
from lab.nights.writes import Writes
from lab.notify.sending import Channel
from lab.records.evidence import Run
from lab.workflow.climbing import check_claim
from lab.workflow.destroy import destroy
from lab.workflow.session import Reply, Session


@dataclass(frozen=True)
class Roads:
    """The functions a night calls. lab.tasks.nightly.run has lab's own; tests pass their own."""

    up: Callable[[Session, str], Reply]
    """lab.up of the lab of that name."""
    validate: Callable[[Session, str, str], Reply]
    """lab.validate of the lab of that name, for a claim; empty: the strongest it can test."""
    compare: Callable[[Session, str, str], Reply]
    """The same, with a boot of L2 with KVM and one without."""
    destroy: Callable[[Session, str], object] = destroy
    history: Callable[[Path], History] = History
    budget: Callable[[float], Budget] = Budget
    clock: Callable[[], WallClock] = WallClock
    channels: Callable[[Session], Sequence[Channel]] = telling.channels
    """Whom to tell."""


def run(
    session: Session, roads: Roads, claim: str = "", key: str = "", repeated: Likeness | None = None
) -> Reply:
    """One night, now. The exit code is that of its verdict; BusyError while another night runs.

    The night is in the history before anything of it happens. HistoryError when it cannot be, or when its
    result could not be written down in the end: that is never a success.

    A key (lab.nights.keys) has one night on a host: whoever calls again waits for it, and is given what is
    on record of it, also where its command was killed. A night that repeats another (`repeated`) notes what
    it could not have again.
    """
    check_claim(claim)
    keys.check(key)
    session.again = "what was found is on record; the same command is another night"
    with keys.turn(session, key):
        recorded: Night | None = None
        try:
            with contextlib.ExitStack() as stack:
                history = stack.enter_context(roads.history(session.history_file))
                keeping.close_dead(session, history)
                if key:
                    recorded = history.keyed(key, session.host_id)
                if recorded is None:
                    folder = Run(session.store.evidence_folder, NAME, "night")
                    night = _Night(session, roads, claim, history, folder, key, repeated)
                opened = stack.pop_all()
        except InterruptedByUser:
            raise  # a night that is on record by now is told by the next one; else there was none
        except (LabError, OSError) as error:
            # Nothing can be written down, but somebody can still be told.
            plain = (
                system.explain(error, (session.settings.state_dir,)) if isinstance(error, OSError) else error
            )
            telling.unrecorded(session, plain or error, roads.channels(session))
            if plain:
                raise plain from error
            raise HistoryError(f"the night could not be recorded: {error}") from error
        with opened:
            if recorded:
                return _recorded(session, roads, history, recorded)
            session.evidence = folder.path
            session.steps.subscribe(folder.steps)
            return night.spend()


def _recorded(session: Session, roads: Roads, history: History, night: Night) -> Reply:
    """The answer of a night that was: what its command left undone is done, and nothing runs anew."""
    with session.steps.step("night.recorded", night.key) as step:
        step.result = f"night {night.id}, begun {night.started}: {night.verdict}"
    if interruption := NightLab(session, roads.destroy, made=True).clean_up():
        raise interruption
    if night.untold or not night.report:
        night = following.follow(session, history, roads.channels(session), night.id)
    return _answer(night)


def _answer(night: Night) -> Reply:
    document = NightlyRun(night=night.as_dict()).as_json()
    return Reply(document, lambda console: show(console, night), exit_code(Verdict(night.verdict)))


class _Night:
    """A night that is on record as running."""

    def __init__(
        self,
        session: Session,
        roads: Roads,
        claim: str,
        history: History,
        folder: Run,
        key: str,
        repeated: Likeness | None,
    ) -> None:
        self.session, self.roads, self.claim = session, roads, claim
        self.history, self.folder, self.repeated = history, folder, repeated
        self.settings = session.settings.nightly
        self.budget = roads.budget(60.0 * self.settings.budget_minutes)
        self.runs = NightRuns(session, folder, self.budget)
        self.clock = roads.clock()
        self.notes: list[str] = []
        self.writes = Writes()
        self.lab = NightLab(session, roads.destroy)
        self.verdict = ""
        """Once it is judged."""
        self.default_claim = history.last_claim()
        """The claim of a night that fails before it knows its own: that of the night before."""
        self.id = history.begin(
            planned=self.settings.runs + int(self.settings.compare),
            evidence=str(folder.path),
            boot_id=self.session.factories.host().boot_id or "",
            lab_version=__version__,
            key=key,
            host=session.host_id,
        )

    def spend(self) -> Reply:
        """Run, judge, clean up, report. Raises what stopped it; HistoryError when it cannot be recorded."""
        began = time.monotonic()
        before = keeping.evidence_folders(self.session)
        stopped: BaseException | None = None
        missing, why = 0, f"the budget of {self.settings.budget_minutes} minutes was spent"
        try:
            self._catch_up()
            with self.budget:
                missing = self._run_all()
        except (InterruptedByUser, KeyboardInterrupt) as interruption:
            stopped = interruption
            missing, why = max(1, self._left), f"the night was stopped: {interruption}"
        except Exception as error:  # the lab is removed and the night recorded, whatever broke
            missing, why = max(1, self._left), f"the night broke: {error!r}"
        try:
            self._end(missing, why, began)
        finally:
            stopped = self._leave(stopped) or stopped
            self.notes += self.lab.notes
        for note in self.notes:
            self.writes(partial(self.history.note, self.id, note))
        self.writes.again()  # the lab's disk is gone: there may be room now
        with contextlib.suppress(OSError):  # still a full disk: nothing of it may cost the answer
            new = sorted(keeping.evidence_folders(self.session) - before)
            self.folder.json("night.json", {"night": self.id, "folders": new})
        if stopped is not None:
            raise stopped
        if self.writes.fault is not None:
            self._tell_unrecorded(self.writes.fault)
            raise self.writes.fault
        return self._afterwards()

    def _leave(self, stopped: BaseException | None) -> BaseException | None:
        """Remove the lab, or keep it for somebody to look into. Returns the interruption that ended this."""
        if stopped is None and self.verdict in self.settings.keep_on:
            return self.lab.keep(self.history.night(self.id).uuid)
        return self.lab.clean_up()

    def _tell_unrecorded(self, fault: HistoryError) -> None:
        night: Night | None = None
        with contextlib.suppress(HistoryError):  # what cannot be written can be read, as a rule
            night = self.history.night(self.id)
        telling.unrecorded(self.session, fault, self.roads.channels(self.session), night)

    def _catch_up(self) -> None:
        """Tell of earlier nights that nobody was told of. What goes wrong in it costs this night nothing."""
        try:
            following.catch_up(self.session, self.history, self.roads.channels(self.session), self.id)
        except InterruptedByUser:
            raise
        except Exception as error:
            self.notes.append(f"a night before could not be told: {error}")

    def _run_all(self) -> int:
        """All runs, each recorded as it ends. Returns how many were planned and did not happen."""
        runs, validate, compare = self.runs, self.roads.validate, self.roads.compare
        first = self._run_once(UP, lambda session: self.lab.make(session, self.roads.up))
        settled = first.verdict in (Verdict.CONFIRMED, Verdict.REFUTED)
        if not (runs.reachable or settled or runs.over):
            return 0  # no VM to look at again, and nothing seen that a second look could bear out
        while self._left > 0:
            if runs.over:
                return self._left
            self._run_once(VALIDATE, lambda session: validate(session, self.lab.name, self.claim))
        rungs = runs.records[-1].rungs
        booted = any(row.rung == nested.boot.name and row.status == "passed" for row in rungs)
        if not self.settings.compare or not booted:
            return 0  # nothing was to be compared, or there is nothing to compare
        if runs.over:
            self.notes.append("nothing was compared: the budget was spent")
            return 1
        compared = self._run_once(COMPARE, lambda session: compare(session, self.lab.name, self.claim))
        if why := compared.error or runs.not_compared:
            self.notes.append(f"nothing was compared: {why}")
        return 0

    def _run_once(self, kind: str, command: Callable[[Session], Reply]) -> ClimbRecord:
        record = self.runs.run_once(kind, command)
        self.clock.look()
        self.writes(partial(self.history.add, self.id, record))
        return record

    @property
    def _left(self) -> int:
        """How many looks were planned and did not happen."""
        return self.settings.runs - sum(run.kind != COMPARE for run in self.runs.records)

    def _end(self, missing: int, why_missing: str, began: float) -> None:
        """Judge, and write down how the night ended."""
        self.clock.look()
        if doubt := self._doubt():
            self.notes.append(doubt)
        judged = judge(self.runs.records, missing, why_missing, self.claim, self.default_claim, doubt)
        self.verdict = judged.verdict
        if self.repeated:
            self.notes += self.repeated.notes(judged.cell)
        ending = replace(
            judged,
            seconds=round(time.monotonic() - began, 3),
            clock_jump=self.clock.jump,
            notes=self.notes,
        )
        self.notes = []
        self.writes(lambda: self.history.end(self.id, ending))

    def _doubt(self) -> str:
        """Why the night settles nothing: this machine's clock or L1's was set; empty when neither was."""
        if moved := self.clock.jump:
            return f"the wall clock moved by {moved:+.0f} s during the night: it was set, or the host slept"
        if moved := self.runs.vm_clock_jump:
            return (
                f"the VM's clock moved by {moved:+.0f} s during the night: it was set, or the VM stood still"
            )
        return ""

    def _afterwards(self) -> Reply:
        night = following.follow(self.session, self.history, self.roads.channels(self.session), self.id)
        keeping.prune(self.session, self.history)
        with contextlib.suppress(OSError):
            self.folder.json("history.json", night.as_dict())
        return _answer(night)

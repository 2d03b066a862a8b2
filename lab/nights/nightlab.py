"""The lab of a night: made afresh; removed by the night that made it or by a later one, or kept for a while.

A lab that is kept (nightly.keep_on) is suspended, and has a mark of its own that says until when. While it is
there, nights make theirs under the next name: nightly-2, nightly-3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from lab.adb import AdbServer
from lab.core import files
from lab.core.deadline import cleaning_up
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.engines.protocol import State
from lab.nights.keeping import NAME
from lab.records.labs import Lab
from lab.workflow import preflight, selection
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

MARK = "made-by-nightly"
"""In the folder of a lab that nightly.run made: no other is destroyed."""
KEPT = "kept-by-nightly"
"""In the folder of one that is kept, beside MARK: which night's it is, and until when."""


class KeptLab(NamedTuple):
    """A lab that a night left for somebody to look into; `bytes` is what it takes of the disk."""

    lab: Lab
    until: datetime
    bytes: int


class NightLab:
    """The lab of one night, called `name`.

    `destroy` removes the lab of a name (lab.workflow.destroy); `made` says that a night made it.
    """

    def __init__(
        self, session: Session, destroy: Callable[[Session, str], object], made: bool = False
    ) -> None:
        self.session, self._destroy, self._made = session, destroy, made
        self.name = _free_name(session)
        self.notes: list[str] = []
        """What is to be noted of the night."""

    def make(self, session: Session, up: Callable[[Session, str], Reply]) -> Reply:
        """Remove what a killed night left and what was kept long enough, and make the lab by `up`.

        Raises BlockedError where somebody else's lab has its name, and as `up` does.
        """
        selection.planned(session, NAME)  # settings that are refused cost nothing that is there
        self._sweep(session)
        self.name = _free_name(session)
        self._remove(session)
        preflight.before_anything(session)
        files.write_atomic(session.store.place(self.name).folder / MARK, "")
        self._made = True
        return up(session, self.name)

    def clean_up(self) -> BaseException | None:
        """Remove the lab, where it was made. Returns the interruption that ended this, if one did."""
        if not self._made:
            return None
        session = self._quiet()
        try:
            with cleaning_up():
                self._remove(session)
        except (Exception, KeyboardInterrupt) as error:  # the night has its verdict; a note says what is left
            self.notes.append(f"the lab {self.name} could not be removed: {_what(error)}")
            return error if isinstance(error, InterruptedByUser | KeyboardInterrupt) else None
        return None

    def keep(self, night: str) -> BaseException | None:
        """Keep the lab for the night of that uuid, suspended; one that cannot be kept is removed.

        Returns the interruption that ended this, if one did.
        """
        lab = self.session.store.find(self.name) if self._made else None
        record = lab.read() if lab else None
        if lab is None or record is None or not record.image:  # there was no VM yet
            return self.clean_up()
        until = datetime.now(UTC) + timedelta(hours=self.session.settings.nightly.keep_hours)
        session = self._quiet()
        try:
            with cleaning_up():
                files.write_json(lab.folder / KEPT, {"night": night, "until": until.isoformat()})
                how = _suspend(session, self.name)
                self._sweep(session)
        except (Exception, KeyboardInterrupt) as error:
            self.notes.append(f"the lab {self.name} could not be kept: {_what(error)}")
            (lab.folder / KEPT).unlink(missing_ok=True)
            ended = error if isinstance(error, InterruptedByUser | KeyboardInterrupt) else None
            return self.clean_up() or ended
        if self.session.store.find(self.name) is not None:
            tasks = ("lab.resume", "lab.ssh") if how == State.SUSPENDED else ("lab.up", "lab.ssh")
            words = " and ".join(f"`invoke {task} --name {self.name}`" for task in tasks)
            self.notes.append(
                f"the VM is kept, {how}, until {until:%Y-%m-%d %H:%M} UTC: {words} lead into it, "
                f"`invoke lab.destroy --name {self.name}` removes it"
            )
        return None

    def _sweep(self, session: Session) -> None:
        """Remove the kept labs whose time is over, and the oldest of those that take too much of the disk."""
        limit = session.settings.nightly.keep_gib
        room = limit << 30
        for kept in sorted(kept_labs(session), key=lambda each: each.until, reverse=True):
            room -= kept.bytes
            over = kept.until <= datetime.now(UTC)
            if not over and room >= 0:
                continue
            why = "its time was over" if over else f"what is kept took more than {limit} GiB"
            try:
                self._destroy(session, kept.lab.name)
                self.notes.append(f"the lab {kept.lab.name}, which was kept, is removed: {why}")
            except InterruptedByUser:
                raise
            except Exception as error:  # such as a command that works on it: a later night does it
                self.notes.append(f"the lab {kept.lab.name}, which was kept, is still there: {_what(error)}")

    def _remove(self, session: Session) -> None:
        """Destroy the lab a night left. BlockedError for one that somebody else made."""
        lab = session.store.find(self.name)
        if lab is None or (lab.folder / KEPT).exists():
            return
        if not (lab.folder / MARK).exists():
            raise BlockedError(
                f"there is a lab {self.name} that nightly.run did not make: it is left alone",
                hint=f"`invoke lab.destroy --name {self.name}`, if nobody needs it",
            )
        self._destroy(session, self.name)

    def _quiet(self) -> Session:
        return replace(self.session, steps=self.session.steps.branch(), evidence=None, interactive=False)


def kept_labs(session: Session) -> list[KeptLab]:
    """The labs that nights keep."""
    kept = []
    for lab in session.store.labs():
        if (lab.folder / MARK).exists() and (lab.folder / KEPT).exists():
            try:
                until = datetime.fromisoformat(files.read_object(lab.folder / KEPT)["until"])
                over = until if until.tzinfo else until.replace(tzinfo=UTC)
            except (OSError, ValueError, KeyError, TypeError):
                over = datetime.fromtimestamp(0, UTC)  # torn: nobody can say that it is to stay
            kept.append(KeptLab(lab, over, _size(lab.folder)))
    return kept


def _free_name(session: Session) -> str:
    """The first name under which a night can make its lab: no lab is kept there, or is somebody's.

    The first is NAME also where that is somebody's: then the night says so.
    """
    for number in itertools.count(1):
        name = NAME if number == 1 else f"{NAME}-{number}"
        lab = session.store.find(name)
        kept = lab is not None and (lab.folder / KEPT).exists()
        if lab is None or (not kept and (number == 1 or (lab.folder / MARK).exists())):
            return name
    raise AssertionError("there is always a next name")


def _suspend(session: Session, name: str) -> str:
    """Suspend the VM if it runs; how it is kept, as a word."""
    bench = Workbench.open(session, name)
    with bench.lab.hold("nightly.run"):
        state = bench.state_of_vm()
        if state in (State.RUNNING, State.PAUSED):
            with session.steps.step("vm.suspend", name):
                bench.machine.suspend()
            state = State.SUSPENDED
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        bench.close()
    return str(state)


def _size(folder: Path) -> int:
    """Bytes on the disk, holes left out."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:  # gone meanwhile
            continue
    return total


def _what(error: BaseException) -> str:
    return error.what if isinstance(error, LabError) else repr(error)

"""The lab of a night: made afresh, and removed by the night that made it or by a later one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lab.core.deadline import cleaning_up
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.core.files import write_atomic
from lab.nights.keeping import NAME
from lab.workflow import preflight, selection
from lab.workflow.session import Reply, Session

MARK = "made-by-nightly"
"""In the folder of a lab that nightly.run made: no other is destroyed."""


class NightLab:
    """The lab `nightly`, for one night.

    `destroy` removes the lab of a name (lab.workflow.destroy); `made` says that a night made it.
    """

    def __init__(
        self, session: Session, destroy: Callable[[Session, str], object], made: bool = False
    ) -> None:
        self.session, self._destroy, self._made = session, destroy, made

    def make(self, session: Session, up: Callable[[Session, str], Reply]) -> Reply:
        """Remove what a killed night left, and make the lab by `up`.

        Raises BlockedError where somebody else's lab has its name, and as `up` does.
        """
        selection.planned(session, NAME)  # settings that are refused cost nothing that is there
        self._remove(session)
        preflight.before_anything(session)
        write_atomic(session.store.place(NAME).folder / MARK, "")
        self._made = True
        return up(session, NAME)

    def clean_up(self) -> tuple[list[str], BaseException | None]:
        """Remove the lab, where it was made; what is to be noted, and the interruption that ended this."""
        if not self._made:
            return [], None
        session = replace(self.session, steps=self.session.steps.branch(), evidence=None, interactive=False)
        try:
            with cleaning_up():
                self._remove(session)
        except (Exception, KeyboardInterrupt) as error:  # the night has its verdict; a note says what is left
            what = error.what if isinstance(error, LabError) else repr(error)
            interrupted = isinstance(error, InterruptedByUser | KeyboardInterrupt)
            return [f"the lab {NAME} could not be removed: {what}"], error if interrupted else None
        return [], None

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
        self._destroy(session, NAME)

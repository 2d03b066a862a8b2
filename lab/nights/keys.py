"""Keys: what a night was asked for. A key has one night on a host, however often it is called for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import date

from lab.core import lock
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BusyError, DeadlineError, UsageError
from lab.history.model import Night
from lab.history.store import History
from lab.nights.keeping import lock_file
from lab.workflow.session import Session

_KEY = re.compile(r"(\d{4}-\d\d-\d\d)/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_MARGIN_SECONDS = 3600.0
"""What the night that is waited for may take beyond its budget: tidying up, telling."""
_POLL_SECONDS = 1.0


def is_key(text: str) -> bool:
    """Whether it is DATE/CELL."""
    match = _KEY.fullmatch(text)
    try:
        return match is not None and bool(date.fromisoformat(match[1]))
    except ValueError:
        return False


def check(key: str) -> None:
    """Raise UsageError unless `key` is empty or DATE/CELL, such as 2026-12-01/mac-vbox71."""
    if not key or is_key(key):
        return
    raise UsageError(
        f"{key!r} is no key of a night",
        hint="a key is DATE/CELL, such as 2026-12-01/linux-kvm: a day, and a name of letters, digits, "
        "`.`, `_` and `-`",
    )


def find(history: History, name: str, host: str) -> Night:
    """The night on record of that number, uuid or key; of a key rather the one of the host of that id.

    Raises UsageError where there is none.
    """
    nights = history.nights()
    chosen = [night for night in nights if name in (str(night.id), night.uuid)]
    keyed = [night for night in nights if night.key == name]
    chosen += [night for night in keyed if night.host in (host, "")] + keyed
    if not chosen:
        raise UsageError(
            f"there is no night {name!r}",
            hint="a night is named by its number, uuid or key: `invoke nightly.history` shows them",
        )
    return chosen[0]


@contextlib.contextmanager
def turn(session: Session, key: str) -> Iterator[None]:
    """Be the one night of this state folder. BusyError while another runs; with a key, it is waited for.

    With a key BusyError, too, once that took longer than the budget and an hour. InterruptedByUser.
    """
    with contextlib.ExitStack() as stack:

        def take() -> None:
            stack.enter_context(lock.hold(lock_file(session), "nightly.run", "the night"))

        try:
            take()
        except BusyError as busy:
            if not key:
                raise
            _wait(session, key, busy, take)
        yield


def _wait(session: Session, key: str, busy: BusyError, take: Callable[[], None]) -> None:
    """Take the lock once it is free."""
    deadline = Deadline.after(60.0 * session.settings.nightly.budget_minutes + _MARGIN_SECONDS)

    def attempt() -> bool:
        try:
            take()
        except BusyError as error:
            raise NotYet(error.what) from error
        return True

    with session.steps.step("night.wait", busy.what) as step:
        try:
            poll(attempt, deadline, f"the turn of {key}", every=_POLL_SECONDS)
        except DeadlineError as error:
            raise BusyError(error.what, hint="end the night that runs; then run this again") from error
        step.result = "its turn"

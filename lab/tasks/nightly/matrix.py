"""nightly.matrix: what this host tried, night by night, as a page and a badge."""

from __future__ import annotations

import socket

from lab.core import caller, proc
from lab.core.errors import UsageError
from lab.core.files import PRIVATE, PUBLIC
from lab.nights.keeping import opened
from lab.nights.matrix import of_history
from lab.reports.html import matrix as pages
from lab.workflow.session import Reply, Session


def matrix(session: Session, to: str = "", limit: int = 60, open_it: bool = False) -> Reply:
    """Write matrix.html and badge.svg into `to` (the state folder's `matrix` when empty).

    The answer is fleet.matrix/1. `limit` is in days, 0 for all. Raises UsageError, HistoryError.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is less than no night", hint="0 shows all")
    folder = caller.path(to, home=True) if to else session.settings.state_dir / "matrix"
    with opened(session) as history:
        document = of_history(history.nights(), socket.gethostname(), limit, session.host_id)
    with session.steps.step("matrix") as step:
        page = pages.write(document, folder, PUBLIC if to else PRIVATE)
        step.result = str(page)
    document = document.model_copy(update={"page": str(page)})
    lines = [pages.summary(document), f"page:  {page}", f"badge: {folder / pages.BADGE}"]
    if open_it and not proc.browse(page.as_uri()):
        lines.append("no browser could be started here: open the page in one")
    return Reply.of(document, *lines)

"""lab.config."""

from __future__ import annotations

from dataclasses import replace

from lab.config import effective
from lab.core.showing import table
from lab.core.web import shown
from lab.documents.host import LabConfig
from lab.workflow import mirror
from lab.workflow.session import Reply, Session


def config(session: Session) -> Reply:
    """Every effective setting and where it came from, the Debian archive that is in use among them."""
    rows = [
        replace(row, value=shown(used.address), origin=used.origin)
        if row.key == mirror.KEY and not row.value and (used := mirror.known(session))
        else row
        for row in effective(session.settings)
    ]
    values = ((row.key, str(row.value), row.origin) for row in rows)
    return Reply.of(LabConfig(values=rows), table(("key", "value", "from"), values))

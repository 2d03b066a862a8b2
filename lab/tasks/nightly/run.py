"""nightly.run."""

from __future__ import annotations

from functools import partial

from lab.nights import night
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow.session import Reply, Session

ROADS = night.Roads(up=up, validate=validate, compare=partial(validate, compare=True))


def run(session: Session, claim: str = "", key: str = "") -> Reply:
    """One night, now: all of it is in lab.nights.night."""
    return night.run(session, ROADS, claim, key)

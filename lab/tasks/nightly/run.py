"""nightly.run."""

from __future__ import annotations

from functools import partial

from lab.nights import likeness, night
from lab.nights.keeping import opened
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow.session import Reply, Session

ROADS = night.Roads(up=up, validate=validate, compare=partial(validate, compare=True))


def run(
    session: Session, claim: str = "", key: str = "", like: str = "", roads: night.Roads = ROADS
) -> Reply:
    """One night, now: all of it is in lab.nights.night. `like` is another that it repeats."""
    repeated = None
    if like:
        with opened(session) as history:
            repeated = likeness.like(session, history, like)
        session.settings, claim = repeated.settings, claim or repeated.night.claim
    return night.run(session, roads, claim, key, repeated)

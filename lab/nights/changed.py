"""Of a night the run that stands for it, and what differs from the last good one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab.core.files import read_object, write_json
from lab.documents.differences import LabDiff
from lab.history.model import ENDED, ClimbRecord, Night
from lab.history.store import History
from lab.model.domain import Verdict
from lab.reports.difference import RED, difference
from lab.reports.side import RunSide

FILE = "diff.json"
"""In the evidence folder of a red night: lab.diff/1."""
_BACK = 400
"""How many nights the search for the last good one goes back."""


def run_of(night: Night) -> ClimbRecord | None:
    """The run that gave the night its verdict: the first of that verdict, else the first that did not
    confirm, else the first; of those whose evidence is still there. None where no run left any."""
    kept = [run for run in night.runs if run.evidence and Path(run.evidence).is_dir()]
    wanted = [run for run in kept if run.verdict == night.verdict]
    red = [run for run in kept if run.verdict != Verdict.CONFIRMED.value]
    return next(iter(wanted or red or kept), None)


def last_good(history: History, night: Night) -> Night | None:
    """The newest night before it, of its host and engine, that confirmed its claim and left evidence."""
    for earlier in history.alike(night, _BACK):
        if earlier.verdict_on(night.claim) == Verdict.CONFIRMED.value and run_of(earlier):
            return earlier
    return None


def between(before: Night, after: Night) -> LabDiff | None:
    """What differs between two nights, by the runs that stand for them; None where one left none."""
    old, new = run_of(before), run_of(after)
    if old is None or new is None:
        return None
    return difference(RunSide(Path(old.evidence), before.id), RunSide(Path(new.evidence), after.id))


def since_last_good(history: History, night: Night) -> LabDiff | None:
    """Of a night that did not confirm, what differs from the last that did; kept beside its evidence."""
    if night.state != ENDED or night.verdict not in RED:
        return None
    good = last_good(history, night)
    diff = between(good, night) if good else None
    if diff is not None:
        with contextlib.suppress(OSError):  # a full disk costs the copy, and not the night
            write_json(Path(night.evidence) / FILE, diff.as_json())
    return diff


def kept_headline(night: Night) -> str:
    """What changed first in a red night, as it was found when its report was written; else empty."""
    with contextlib.suppress(OSError, ValueError):
        return str(read_object(Path(night.evidence) / FILE).get("headline", ""))
    return ""

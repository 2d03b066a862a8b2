"""A difference for the tests of reports."""

from __future__ import annotations

from lab.documents.differences import DiffChange, DiffLog, DiffPart, DiffRung, DiffSide, LabDiff


def differing(text: str = "guest.kvm changed first: passed before, failed now") -> LabDiff:
    """A difference of every kind, each of its texts being `text`."""
    side = DiffSide(
        name=text,
        folder=text,
        lab=text,
        night=1,
        started=None,
        claim="nesting",
        verdict="refuted",
        reason=text,
    )
    rung = DiffRung(
        rung="guest.kvm",
        before="passed",
        after="failed",
        before_observed=text,
        after_observed=text,
        outcome=True,
    )
    changes = [DiffChange(what=text, before=text, after=None), DiffChange(what=text, before=None, after=text)]
    parts = [
        DiffPart(part="settings", recorded="both", source=text, changes=changes, same=3),
        DiffPart(part="packages", recorded="before", source=text, changes=(), same=0),
    ]
    return LabDiff(
        before=side,
        after=side,
        headline=text,
        first=rung,
        rungs=[rung],
        rungs_recorded="both",
        parts=parts,
        logs=[DiffLog(file="dmesg.txt", recorded="both", gone=[text], new=[text, text], left_out=2)],
    )

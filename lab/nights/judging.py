"""The verdict of a night from its runs. No files, clock or processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.history.model import CELL, Claimed, ClimbRecord, Ending
from lab.model.domain import Claim, Verdict
from lab.theory.repeats import combine


def judge(
    runs: Sequence[ClimbRecord],
    missing: int,
    why_missing: str,
    asked: str = "",
    default: str = "",
    doubt: str = "",
) -> Ending:
    """What all runs together say of each claim.

    The night's own claim is the one that was asked for, else the runs' own, else `default`. `missing` runs
    were planned and did not happen: each counts as inconclusive, for the reason `why_missing`. `doubt` says
    why nothing in the night can be relied on: then nothing is confirmed, and nothing refuted.
    """
    cell = next((run.cell for run in runs if run.cell), None)
    chosen = asked or next((run.claim for run in runs if run.claim), "") or default
    claims = {claim.value: _combined(claim, runs, missing, why_missing) for claim in Claim}
    applicable = any(claimed.verdict != Verdict.NOT_APPLICABLE for claimed in claims.values())
    if applicable and (differing := _differing(runs)):
        reason = f"the runs were not of one cell: {differing} changed between them"
        for name, claimed in claims.items():
            claims[name] = replace(claimed, verdict=Verdict.INCONCLUSIVE.value, reason=reason)
    own = claims.get(chosen) or _combined(None, runs, missing, why_missing)
    if doubt:
        claims = {name: _doubted(claimed, doubt) for name, claimed in claims.items()}
        own = _doubted(own, doubt)
    return Ending(Verdict(own.verdict), chosen, own.reason, list(claims.values()) if chosen else [], cell)


def _doubted(claimed: Claimed, doubt: str) -> Claimed:
    if claimed.verdict in (Verdict.BLOCKED, Verdict.NOT_APPLICABLE):
        return claimed
    return replace(claimed, verdict=Verdict.INCONCLUSIVE.value, reason=f"{doubt}; {claimed.reason}")


def _combined(claim: Claim | None, runs: Sequence[ClimbRecord], missing: int, why_missing: str) -> Claimed:
    """The runs' common verdict on a claim; without one, on whatever each of them was about."""
    verdicts = [_verdict_of(run, claim) for run in runs]
    if claim and any(verdict is Verdict.NOT_APPLICABLE for verdict, _ in verdicts):
        # A matter of the cell: a run that failed beside it does not make it applicable.
        verdicts = [pair for pair in verdicts if pair[0] is Verdict.NOT_APPLICABLE]
        missing = 0
    verdicts += [(Verdict.INCONCLUSIVE, why_missing)] * missing
    combined = combine(verdict for verdict, _ in verdicts)
    # The first reason against the claim, if any, explains the verdict best.
    reasons = sorted(verdicts, key=lambda pair: pair[0] is Verdict.CONFIRMED)
    decisive = f": {reasons[0][1]}" if reasons and reasons[0][1] else ""
    counts = {verdict.value: number for verdict, number in combined.counts.items()}
    return Claimed(
        claim.value if claim else "", combined.verdict.value, f"{combined.reason}{decisive}", counts
    )


def _verdict_of(run: ClimbRecord, claim: Claim | None) -> tuple[Verdict, str]:
    """A run's verdict on the claim, with the reason; its overall verdict if it did not judge that claim."""
    for claimed in run.claims:
        if claim and claimed.claim == claim.value:
            return Verdict(claimed.verdict), claimed.reason
    return Verdict(run.verdict), run.error or run.reason


def _differing(runs: Sequence[ClimbRecord]) -> str:
    """Columns in which two runs' cells differ; a value that a run does not know is no difference."""
    cells = [run.cell for run in runs if run.cell]
    names = [name for name in CELL if len({cell[name] for cell in cells if cell[name] not in ("", None)}) > 1]
    return ", ".join(names)

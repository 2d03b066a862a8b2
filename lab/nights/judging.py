"""The verdict of a night from its runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.history import CELL, Claimed, ClimbRecord
from lab.model.domain import Claim, Verdict
from lab.theory.repeats import combine


@dataclass(frozen=True)
class Judged:
    """`claim` is empty when no run came far enough to name one."""

    verdict: Verdict
    claim: str
    reason: str
    claims: Sequence[Claimed]
    cell: Mapping[str, Any] | None


def judge(
    runs: Sequence[ClimbRecord],
    missing: int,
    why_missing: str,
    claim: str = "",
    last_claim: str = "",
    doubt: str = "",
) -> Judged:
    """What all runs together say of each claim; `claim`, or the runs' own, is the night's.

    `last_claim` is the night's where no run came far enough to name one: what the night before was
    about. `missing` runs that were planned and did not happen count as inconclusive, for the reason
    `why_missing`. `doubt` says why nothing that was seen is to be relied on: then nothing is confirmed,
    and nothing refuted.
    """
    cell = next((run.cell for run in runs if run.cell), None)
    chosen = claim or next((run.claim for run in runs if run.claim), "") or last_claim
    claims = [_claimed(one, runs, missing, why_missing) for one in Claim]
    if (differing := _differing(runs)) and not all(one.verdict == Verdict.NOT_APPLICABLE for one in claims):
        reason = f"the runs were not of one cell: {differing} changed between them"
        claims = [Claimed(one.claim, Verdict.INCONCLUSIVE.value, reason, one.counts) for one in claims]
    found = next((one for one in claims if one.claim == chosen), None) or _claimed(
        None, runs, missing, why_missing
    )
    if doubt:
        claims, found = [_doubted(one, doubt) for one in claims], _doubted(found, doubt)
    return Judged(Verdict(found.verdict), chosen, found.reason, claims if chosen else [], cell)


def _doubted(claimed: Claimed, doubt: str) -> Claimed:
    if claimed.verdict in (Verdict.BLOCKED, Verdict.NOT_APPLICABLE):
        return claimed
    return replace(claimed, verdict=Verdict.INCONCLUSIVE.value, reason=f"{doubt}; {claimed.reason}")


def _claimed(claim: Claim | None, runs: Sequence[ClimbRecord], missing: int, why_missing: str) -> Claimed:
    """The runs' common word on a claim; without one, on whatever each of them was about."""
    said = [_said(claim, run) for run in runs]
    name = claim.value if claim else ""
    if claim and any(verdict is Verdict.NOT_APPLICABLE for verdict, _ in said):
        # A matter of the cell: a run that failed beside it does not make it applicable.
        said = [pair for pair in said if pair[0] is Verdict.NOT_APPLICABLE]
        missing = 0
    said += [(Verdict.INCONCLUSIVE, why_missing)] * missing
    combined = combine(verdict for verdict, _ in said)
    counts = {verdict.value: number for verdict, number in combined.counts.items()}
    reasons = [reason for verdict, reason in said if verdict is not Verdict.CONFIRMED] or [
        reason for _, reason in said
    ]
    decisive = reasons[0] if reasons else ""
    reason = f"{combined.reason}: {decisive}" if decisive else combined.reason
    return Claimed(name, combined.verdict.value, reason, counts)


def _said(claim: Claim | None, run: ClimbRecord) -> tuple[Verdict, str]:
    found = next((one for one in run.claims if claim and one.claim == claim.value), None)
    return (
        (Verdict(found.verdict), found.reason) if found else (Verdict(run.verdict), run.error or run.reason)
    )


def _differing(runs: Sequence[ClimbRecord]) -> str:
    """Columns in which two runs' cells differ; what a run did not get to know differs from nothing."""
    cells = [run.cell for run in runs if run.cell]
    names = [name for name in CELL if len({cell[name] for cell in cells if cell[name] not in ("", None)}) > 1]
    return ", ".join(names)

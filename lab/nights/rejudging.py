"""What another host says of its night, believed as far as it follows from the rungs it names.

A verdict may be weaker than its rungs (a clock that jumped, an emulator that was not the one asked for). One
that confirms or refutes must follow from them by this lab's own rules; else it is inconclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.history.model import Claimed, ClimbRecord, Night, RungRecord, cell_document
from lab.ladder.rungs import nested
from lab.ladder.verdict import judge as judge_rungs
from lab.model.domain import Outcome, Verdict
from lab.nights.clock import JUMP_SECONDS
from lab.nights.judging import judge as judge_runs
from lab.nights.runs import COMPARE
from lab.theory.observed import cell_of

_DECISIVE = (Verdict.CONFIRMED.value, Verdict.REFUTED.value)
UNFOUNDED = "the verdict that was handed in does not follow from its rungs"


def weighed(night: Night) -> Night:
    """The night, inconclusive in every verdict that does not follow from what it rests on; a note says so."""
    runs = [_weighed_run(run) for run in night.runs]
    missing = _missing(night)
    again = judge_runs(runs, missing, f"{missing} runs did not happen", asked=night.claim)
    verdicts = {claimed.claim: claimed for claimed in again.claims}
    doubt = abs(night.clock_jump) >= JUMP_SECONDS
    claims = [
        _inconclusive(claimed)
        if claimed.verdict in _DECISIVE
        and (doubt or claimed.claim not in verdicts or verdicts[claimed.claim].verdict != claimed.verdict)
        else replace(claimed, counts=verdicts[claimed.claim].counts)
        if claimed.verdict in _DECISIVE
        else claimed
        for claimed in night.claims
    ]
    own = next((claimed for claimed in claims if claimed.claim == night.claim), None)
    verdict, reason = night.verdict, night.reason
    if verdict in _DECISIVE and (own is None or own.verdict != verdict):
        verdict, reason = Verdict.INCONCLUSIVE.value, f"{UNFOUNDED}; {reason}"
    reasons = [reason, *(run.reason for run in runs), *(claimed.reason for claimed in claims)]
    doubted = any(each.startswith(UNFOUNDED) for each in reasons)
    notes = [*night.notes, UNFOUNDED] if doubted else night.notes
    cell = night.cell if night.cell in [run.cell for run in runs] else again.cell
    return replace(night, runs=runs, claims=claims, verdict=verdict, reason=reason, notes=notes, cell=cell)


def unfounded(run: ClimbRecord) -> ClimbRecord:
    """The run with every verdict that confirms or refutes made inconclusive."""
    claims = [_inconclusive(claimed) if claimed.verdict in _DECISIVE else claimed for claimed in run.claims]
    if run.verdict not in _DECISIVE:
        return replace(run, claims=claims)
    reason = f"{UNFOUNDED}; {run.reason}"
    return replace(run, claims=claims, verdict=Verdict.INCONCLUSIVE.value, reason=reason)


def _weighed_run(run: ClimbRecord) -> ClimbRecord:
    decisive = {claimed.claim: claimed.verdict for claimed in run.claims if claimed.verdict in _DECISIVE}
    if run.verdict in _DECISIVE and decisive.get(run.claim) != run.verdict:
        return unfounded(run)
    if not decisive:
        return run
    if run.cell is None or run.error or run.cut:
        return unfounded(run)
    try:
        judged = judge_rungs(_outcomes(run.rungs), cell_of(cell_document(run.cell)))
    except ValueError:  # a rung that passed with nothing observed, a cell that contradicts itself
        return unfounded(run)
    follows = {claim.value: verdict.verdict.value for claim, verdict in judged.items()}
    return run if all(follows[claim] == verdict for claim, verdict in decisive.items()) else unfounded(run)


def _outcomes(rungs: Sequence[RungRecord]) -> list[Outcome]:
    return [
        Outcome.of_row(
            {
                "rung": rung.rung,
                "status": rung.status,
                "inconclusive": rung.inconclusive,
                "observed": rung.observed,
            }
        )
        for rung in rungs
    ]


def _missing(night: Night) -> int:
    """How many runs were planned and not made; a comparison needs an L2 that came up (lab.nights.night)."""
    missing = max(0, night.planned - len(night.runs))
    last = night.runs[-1] if night.runs else None
    booted = last and any(rung.rung == nested.boot.name and rung.status == "passed" for rung in last.rungs)
    nothing_to_compare = last is not None and last.kind != COMPARE and not booted
    return missing - 1 if missing and nothing_to_compare else missing


def _inconclusive(claimed: Claimed) -> Claimed:
    reason = f"{UNFOUNDED}; {claimed.reason}"
    return replace(claimed, verdict=Verdict.INCONCLUSIVE.value, reason=reason)

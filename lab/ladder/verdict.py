"""Verdicts: what the outcomes of a climb say about each claim. Pure: no clock, no files, no processes.

The order of the rules is the order of what can be known. A claim the cell cannot test gets no answer
from its rungs; then the lowest required rung that did not pass decides; only with none is it confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.core.errors import ExitCode
from lab.ladder.rung import Rung
from lab.ladder.rungs import LADDER
from lab.model.domain import ATTACHED, NOT_ANDROID, Cell, Claim, Nesting, Outcome, Status, Verdict


@dataclass(frozen=True)
class ClaimVerdict:
    """A verdict, one sentence why, and the rungs it rests on."""

    verdict: Verdict
    reason: str
    rungs: tuple[str, ...] = ()


def judge(
    outcomes: Iterable[Outcome], cell: Cell, expected_emulator: str | None = None
) -> dict[Claim, ClaimVerdict]:
    """The verdict on every claim, in `cell`, from these outcomes (of all rungs or of some).

    `expected_emulator` is the name the configuration asked for: when another one ran, nothing
    is confirmed or refuted. Raises ValueError when a rung has two outcomes, or is none of the ladder's.
    """
    by_rung: dict[str, Outcome] = {}
    for outcome in outcomes:
        if outcome.rung not in LADDER:
            raise ValueError(f"{outcome.rung!r} is not a rung")
        if outcome.rung in by_rung:
            raise ValueError(f"{outcome.rung} has two outcomes")
        by_rung[outcome.rung] = outcome
    return {claim: _judge(claim, by_rung, cell, expected_emulator) for claim in Claim}


def strongest_claim(cell: Cell) -> Claim:
    """The strongest claim this cell can test."""
    for claim in (Claim.THEORY, Claim.ANDROID):
        if _untestable(claim, cell) is None:
            return claim
    return Claim.NESTING


def exit_code(verdict: Verdict) -> ExitCode:
    return {
        Verdict.CONFIRMED: ExitCode.DONE,
        Verdict.REFUTED: ExitCode.REFUTED,
        Verdict.BLOCKED: ExitCode.BLOCKED,
        Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        Verdict.NOT_APPLICABLE: ExitCode.BLOCKED,
    }[verdict]


def _judge(claim: Claim, by_rung: dict[str, Outcome], cell: Cell, expected: str | None) -> ClaimVerdict:
    untestable = _untestable(claim, cell)
    if untestable is not None:
        return untestable
    judged = _from_rungs(claim, by_rung)
    if judged.verdict not in (Verdict.CONFIRMED, Verdict.REFUTED):
        return judged
    if expected is not None and cell.emulator != expected:
        return ClaimVerdict(
            Verdict.INCONCLUSIVE,
            f"the emulator asked for is {expected}, and the one that ran is {cell.emulator or 'none'}",
            judged.rungs,
        )
    if cell.nesting is Nesting.NONE and not cell.nothing_nested:
        return _without_nesting(judged, cell)
    return judged


def _untestable(claim: Claim, cell: Cell) -> ClaimVerdict | None:
    """Why this cell cannot test the claim, whatever its rungs say; None when it can."""
    if claim is Claim.NESTING:
        return None
    if claim is Claim.THEORY and (cell.host.system, cell.engine) != ("macos", "virtualbox"):
        return ClaimVerdict(
            Verdict.NOT_APPLICABLE,
            f"the theory is about VirtualBox on macOS, and this is {cell.engine} on {cell.host.os}",
        )
    if not cell.android or cell.emulator in NOT_ANDROID:
        return ClaimVerdict(Verdict.BLOCKED, f"not tested here: {_no_android(cell)}")
    if cell.emulated or cell.nesting is Nesting.EMULATED:
        return ClaimVerdict(
            Verdict.BLOCKED,
            "not tested here: the processor is emulated in software, which says nothing of a real one",
        )
    if cell.emulated is None:
        return ClaimVerdict(
            Verdict.BLOCKED,
            "not tested here: nothing shows that the processor is a real one and not emulated in software",
        )
    return None


def _no_android(cell: Cell) -> str:
    if cell.emulator in ("", "none"):
        return "no emulator was asked for"
    if cell.emulator not in NOT_ANDROID:
        return f"what ran as {cell.emulator} is a test double, and not Android"
    return f"{cell.emulator} is not Android"


def _without_nesting(judged: ClaimVerdict, cell: Cell) -> ClaimVerdict:
    if judged.verdict is Verdict.REFUTED:
        return ClaimVerdict(
            Verdict.BLOCKED,
            "not tested here: the machine was given no nested virtualization; its hypervisor may have a "
            "switch for it"
            if cell.engine == ATTACHED
            else f"not tested here: {cell.engine} gives its VMs no nested virtualization",
            judged.rungs,
        )
    return ClaimVerdict(
        Verdict.INCONCLUSIVE,
        f"lab's own records disagree: every rung passed, but {cell.engine} is recorded as giving no nesting",
        judged.rungs,
    )


def _from_rungs(claim: Claim, by_rung: dict[str, Outcome]) -> ClaimVerdict:
    for rung in LADDER:
        outcome = by_rung.get(rung.name)
        if claim in rung.required_by and (outcome is None or not outcome.passed):
            return _decided_by(rung, outcome)
        if claim in rung.observed_by and (outcome is None or not outcome.seen):
            return _decided_by(rung, outcome)
    required = LADDER.required(claim)
    last = required[-1]
    return ClaimVerdict(
        Verdict.CONFIRMED, f"every rung it needs passed, up to {last}: {_observed(by_rung[last])}", required
    )


def _decided_by(rung: Rung, outcome: Outcome | None) -> ClaimVerdict:
    """The verdict when `rung` is the lowest that is not as the claim needs it."""
    if outcome is None:
        return ClaimVerdict(Verdict.INCONCLUSIVE, f"{rung.name} was not looked at", (rung.name,))
    if outcome.status is Status.INCONCLUSIVE:
        verdict, became = Verdict.INCONCLUSIVE, "could not be settled"
    elif outcome.status is Status.FAILED:
        verdict, became = (Verdict.REFUTED if rung.decisive else Verdict.BLOCKED), "failed"
    else:
        verdict, became = Verdict.BLOCKED, f"was {outcome.status}"
    return ClaimVerdict(verdict, f"{rung.name} {became}: {_observed(outcome)}", (rung.name,))


def _observed(outcome: Outcome) -> str:
    """What was observed, as the end of a sentence on one line."""
    return " ".join(outcome.observed.split()).rstrip(".") or "nothing was observed"

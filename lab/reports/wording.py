"""The sentences that every report begins with."""

from __future__ import annotations

from datetime import UTC

from lab.documents.flakes import RungRateEntry
from lab.documents.reports import ReportComparison, ReportPrediction, ReportSource
from lab.ladder import report
from lab.ladder.report import limits
from lab.ladder.rungs import LADDER
from lab.model.domain import INFORMS, Cell, Claim, Outcome, Status, Verdict, engine_title
from lab.reports.model import ReportedRun, ReportInput
from lab.theory.observed import Agreement, compare
from lab.theory.repeats import combine

NOT_LOOKED_AT = "not looked at"
"""What is said of a rung without an outcome."""

SAYS: dict[Claim, str] = {
    Claim.NESTING: "KVM works in a container in the VM",
    Claim.ANDROID: "x86 Android boots and is usable in a container in the VM",
    Claim.THEORY: "x86 Android boots and is usable in a container in a VirtualBox VM on macOS",
}
_DENIES: dict[Claim, str] = {
    Claim.NESTING: "KVM does not work in a container in the VM",
    Claim.ANDROID: "x86 Android does not become usable in a container in the VM",
    Claim.THEORY: "x86 Android does not become usable in a container in a VirtualBox VM on macOS",
}
ASKS: dict[Claim, str] = {
    Claim.NESTING: "Asked in this run: does KVM, which it needs, work there?",
    Claim.ANDROID: "Asked in this run: does Android boot there, and can it be used?",
    Claim.THEORY: "Asked in this run: does it with VirtualBox on macOS?",
}
"""How a claim bears on lab's one question."""
MEANS: dict[Verdict, str] = {
    Verdict.CONFIRMED: "Every step that the claim needs was seen to work.",
    Verdict.REFUTED: "A step that the claim needs was seen to fail, with everything it needs in place. "
    "Why it fails is for the evidence to show.",
    Verdict.BLOCKED: "Something the test needs is absent, or this combination cannot test the claim. "
    "This is evidence neither for nor against it.",
    Verdict.INCONCLUSIVE: "lab could not find out. This is evidence neither for nor against the claim.",
    Verdict.NOT_APPLICABLE: "The claim is about another kind of machine than this one.",
}
_HINTED = (Status.FAILED, Status.INCONCLUSIVE, Status.BLOCKED)


def headline(run: ReportInput) -> str:
    """The verdict in one sentence with its cell, without the verdict's word."""
    claim, says = run.last.claim, said(run.last.claim, run.last.cell)
    sentence = {
        Verdict.CONFIRMED: says,
        Verdict.REFUTED: _of_cell(_DENIES[claim], run.last.cell),
        Verdict.BLOCKED: f"Whether {says} could not be tested",
        Verdict.INCONCLUSIVE: f"Whether {says} was not settled",
        Verdict.NOT_APPLICABLE: f"Whether {says} is no question here",
    }[run.verdict]
    times = f" in {len(run.runs)} runs" if len(run.runs) > 1 else ""
    return f"{sentence}, with {short(run.last.cell)}{times}."


def said(claim: Claim, cell: Cell) -> str:
    """What a claim says of this cell: a machine that is no VM is not called one."""
    return _of_cell(SAYS[claim], cell)


def _of_cell(sentence: str, cell: Cell) -> str:
    if cell.arm64 and sentence.startswith("KVM"):
        sentence = f"arm64 {sentence}"
    return sentence.removesuffix(" in the VM") if cell.nothing_nested else sentence


def engine(cell: Cell) -> str:
    return f"{engine_title(cell.engine)} {cell.engine_version}".strip()


def short(cell: Cell) -> str:
    """The cell in a few words."""
    software = {
        True: " and a processor emulated in software",
        None: " and a processor that nothing shows to be real",
        False: "",
    }[cell.emulated]
    return f"{engine(cell)}{software} on {cell.host.os}"


def word(outcome: Outcome | None, claim: Claim) -> str:
    """What came of a rung, in a word."""
    return NOT_LOOKED_AT if outcome is None else report.word(outcome, claim)


def informing(run: ReportedRun) -> list[str]:
    """The rungs that were seen to fail, and on which the run's claim does not depend."""
    return [name for name, outcome in run.outcomes.items() if word(outcome, run.claim) == INFORMS]


def deciding(run: ReportedRun) -> str:
    """The rung that decided against the claim, or kept it from being settled; empty when there is none."""
    rungs = run.document["claims"][run.claim]["rungs"]
    return rungs[0] if run.verdict is not Verdict.CONFIRMED and len(rungs) == 1 else ""


def not_proven(run: ReportInput) -> list[str]:
    """What the verdict does not show. What a test double showed holds for the double."""
    gaps = limits(run.last.cell, run.last.claim, run.verdict)
    if run.verdict is Verdict.REFUTED:
        gaps.insert(0, f"why {deciding(run.last) or 'it'} failed")
    android = run.last.facts.android_boot
    if android is not None and android.double:
        gaps.insert(0, "anything about Android: what ran is a test double of its image")
    return gaps


def hints(run: ReportedRun) -> list[str]:
    """What to do next, from the rungs that did not turn out as the claim needs them."""
    needed = (*LADDER.required(run.claim), *LADDER.observed(run.claim))
    outcomes = [outcome for name, outcome in run.outcomes.items() if name in needed]
    hints = [outcome.hint for outcome in outcomes if outcome.hint and outcome.status in _HINTED]
    return list(dict.fromkeys(hints))


CAME: dict[Agreement, str] = {
    Agreement.AGREES: "as predicted",
    Agreement.CONTRADICTS: "contradicts the prediction",
    Agreement.ANSWERS: "nobody knew before",
    Agreement.NOT_TESTED: "not tested",
}


def foretold(run: ReportInput) -> list[ReportPrediction]:
    """Each of the report's predictions with what all its runs observed."""
    observed = [verdict_of(run, prediction.claim)[0] for prediction in run.predictions]
    return [
        ReportPrediction(**dict(prediction), observed=verdict, came=compare(prediction.predicted, verdict))
        for prediction, verdict in zip(run.predictions, observed, strict=True)
    ]


def verdict_of(run: ReportInput, claim: Claim) -> tuple[Verdict, str]:
    """All runs' verdict on a claim, and the reason."""
    judged = [each.document["claims"][claim] for each in run.runs]
    combined = combine(Verdict(each["verdict"]) for each in judged)
    return combined.verdict, judged[-1]["reason"] if len(combined.counts) == 1 else combined.reason


def compared(comparison: ReportComparison) -> list[str]:
    """The ratios and what they rest on, a sentence each."""
    sentences = []
    for ratio in comparison.ratios:
        spread = f" ({ratio.low:.1f} to {ratio.high:.1f})" if ratio.low and ratio.high else ""
        sentences.append(f"{ratio.name}: {ratio.ratio:.1f} times{spread}, n = {ratio.n}")
    for measure in comparison.measures:
        note = f" ({measure.note})" if measure.note else ""
        took = ", ".join(f"{value:.1f}" for value in measure.seconds)
        sentences.append(f"{measure.name}: {took} s{note}" if took else f"{measure.name}: not measured{note}")
    if comparison.note:
        sentences.append(comparison.note)
    return [*sentences, measured(comparison.source)] if comparison.source else sentences


def measured(source: ReportSource) -> str:
    """Which run measured it, and when."""
    when = source.when.astimezone(UTC)
    return f"measured by the run {source.run} of lab {source.lab}, {when:%Y-%m-%d %H:%M} UTC"


def flake(rung: RungRateEntry) -> tuple[str, str]:
    """How often a rung did not pass, and the interval of the rate, as a report's columns have it."""
    times = rung.failed + rung.inconclusive
    return f"{times} of {rung.tried} ({rung.rate:.1%})", f"{rung.low:.1%} to {rung.high:.1%}"

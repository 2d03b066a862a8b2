"""What lab in an emulated PC answered: believed only as far as it follows from what was observed.

It is the word of a guest. Its documents must be lab's own and name the PC they are of; verdicts
are judged here, from its rungs; pages are drawn here, by this lab's own reporters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lab import reports
from lab.core.errors import BlockedError, ExitCode, InconclusiveError, InterruptedByUser, LabError
from lab.documents.climbs import LabUp
from lab.documents.host import ErrorDocument
from lab.documents.measured import TheoryExperiment
from lab.experiments.result import Experiment
from lab.ladder.verdict import ClaimVerdict, exit_code, judge
from lab.model.document import JsonDocument, SchemaError
from lab.model.domain import Cell, Claim, Outcome, Verdict
from lab.records import evidence
from lab.rehearsal.rehearsal import Rehearsed
from lab.reports.model import ReportedRun
from lab.workflow.selection import CANARY

T = TypeVar("T")
Printed = TypeVar("Printed", bound=JsonDocument)


@dataclass(frozen=True)
class Climbing:
    """What lab.up found, and what follows from it."""

    cell: Cell
    outcomes: tuple[Outcome, ...]
    claims: dict[Claim, ClaimVerdict]


@dataclass(frozen=True)
class RehearsalAnswer:
    """`verdict` is that on nesting, None of an experiment. What there is no word of is None."""

    verdict: Verdict | None
    reason: str
    code: ExitCode
    climbing: Climbing | None = None
    experiment: Experiment | None = None
    report: Path | None = None
    error: LabError | None = None
    """Why there is no word of it."""


def climb(rehearsed: Rehearsed, pc: str, folder: Path) -> RehearsalAnswer:
    """The answer of lab.up in the PC of that name; the page is written into its evidence, in `folder`."""
    try:
        answer = _document(rehearsed, "lab.up", LabUp)
        climbing = _climbing(ReportedRun(answer.as_json()), pc)
    except LabError as error:
        verdict = Verdict.BLOCKED if error.exit_code is ExitCode.BLOCKED else Verdict.INCONCLUSIVE
        reason = _first(rehearsed.trouble, error.what)
        verdict = Verdict.INCONCLUSIVE if rehearsed.trouble else verdict
        return RehearsalAnswer(verdict, reason, exit_code(verdict), error=error)
    nesting = climbing.claims[Claim.NESTING]
    report = _page(folder / "evidence", pc)
    if rehearsed.trouble:
        # What was on its disk by then was not finished: it settles nothing.
        reason = _first(rehearsed.trouble, f"lab.up had come to {nesting.verdict}: {nesting.reason}")
        unsettled = ClaimVerdict(Verdict.INCONCLUSIVE, reason, nesting.rungs)
        climbing = replace(climbing, claims=climbing.claims | {Claim.NESTING: unsettled})
        return RehearsalAnswer(Verdict.INCONCLUSIVE, reason, ExitCode.INCONCLUSIVE, climbing, report=report)
    return RehearsalAnswer(
        nesting.verdict, nesting.reason, exit_code(nesting.verdict), climbing, report=report
    )


def experiment(rehearsed: Rehearsed, pc: str, folder: Path) -> RehearsalAnswer:
    """The answer of theory.experiment in that PC; its page and picture are drawn into its evidence."""
    try:
        tried = _experiment(_document(rehearsed, "theory.experiment", TheoryExperiment), pc)
    except LabError as error:
        code = ExitCode.BLOCKED if error.exit_code is ExitCode.BLOCKED else ExitCode.INCONCLUSIVE
        code = ExitCode.INCONCLUSIVE if rehearsed.trouble else code
        return RehearsalAnswer(None, _first(rehearsed.trouble, error.what), code, error=error)
    runs = evidence.runs(folder / "evidence", "experiment")
    report = None
    if runs:
        tried = Experiment(tried.document.model_copy(update={"evidence": str(runs[-1])}))
        report = _written(lambda: tried.draw(runs[-1]))
    if rehearsed.trouble:
        reason = _first(rehearsed.trouble, tried.sentence)
        return RehearsalAnswer(None, reason, ExitCode.INCONCLUSIVE, experiment=tried, report=report)
    return RehearsalAnswer(None, tried.sentence, tried.code, experiment=tried, report=report)


def _first(trouble: LabError | None, then: str) -> str:
    return f"{trouble.what}; {then}" if trouble else then


def _document(rehearsed: Rehearsed, task: str, model: type[Printed]) -> Printed:
    """What that task printed. Raises InconclusiveError, or the error that it ended with."""
    result = next(result for result in rehearsed.results if result.words[0] == task)
    if result.document.get("schema") == ErrorDocument.tag:
        error = _read(ErrorDocument, result.document).error
        kind = BlockedError if error.exit_code == ExitCode.BLOCKED else InconclusiveError
        raise kind(f"{task} in the PC: {error.what}", hint=error.hint, tail=error.tail)
    if not result.document:
        ended = "did not end" if result.status is None else f"ended with status {result.status}"
        raise InconclusiveError(f"{task} in the PC {ended}, and gave no answer", tail=result.err)
    return _read(model, result.document)


def _read(model: type[Printed], document: Mapping[str, Any]) -> Printed:
    try:
        return model.read(document)
    except SchemaError as error:
        raise InconclusiveError(f"the PC's answer is none of lab's: {error.what}") from error


def _climbing(run: ReportedRun, pc: str) -> Climbing:
    """Raises InconclusiveError for what is not of that PC, or does not follow."""
    cell, outcomes = _understood(lambda: (run.cell, tuple(run.outcomes.values())))
    if cell.host.pc != pc:
        raise InconclusiveError(f"the PC's answer is of {cell.host.pc or 'no emulated PC'}, and it is {pc}")
    claims = _understood(lambda: judge(outcomes, cell, CANARY))
    verdicts = {claim: run.document["claims"][claim]["verdict"] for claim in Claim}
    if verdicts != {claim: judged.verdict for claim, judged in claims.items()}:
        raise InconclusiveError("the verdicts in the PC's answer do not follow from its rungs")
    return Climbing(cell, outcomes, claims)


def _experiment(document: TheoryExperiment, pc: str) -> Experiment:
    if document.where.host.pc != pc:
        raise InconclusiveError(f"the PC's answer is not of {pc}")
    known = dict(document)
    return Experiment.of(known.pop("trials"), **known)


def _understood(read: Callable[[], T]) -> T:
    """What `read` makes of a document that keeps to its schema, and may contradict itself all the same."""
    try:
        return read()
    except (ValueError, TypeError, LookupError) as error:
        raise InconclusiveError(f"the PC's answer contradicts itself: {error}") from error


def _page(folder: Path, pc: str) -> Path | None:
    """The page of the newest climb in `folder`, written beside its evidence; None where it has none."""
    runs = [run for run in evidence.runs(folder, "default") if (run / "validation.json").is_file()]
    return _written(lambda: _reported(runs[-1], pc)) if runs else None


def _reported(folder: Path, pc: str) -> Path:
    kept = reports.RunFolder(folder)
    _climbing(kept.run, pc)
    return reports.write(reports.read([kept]), folder)["html"]


def _written(write: Callable[[], Path]) -> Path | None:
    """A page, or None where it cannot be written: that is no answer's loss."""
    try:
        return write()
    except InterruptedByUser:
        raise
    except Exception:
        return None

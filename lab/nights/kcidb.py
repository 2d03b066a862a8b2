"""A night in kernel CI's words (lab.documents.kcidb), with what is known of its failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.documents.kcidb import (
    KcidbCulprit,
    KcidbEnvironment,
    KcidbIncident,
    KcidbIssue,
    KcidbLike,
    KcidbNumber,
    KcidbStatus,
    KcidbTest,
    KcidbVersion,
)
from lab.history.model import ClimbRecord, Night, cell_document
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Verdict
from lab.nights.known import KnownIssue, recognise
from lab.nights.showing import cell_phrase

ORIGIN = "lab"
VERDICTS: dict[str, KcidbStatus] = {
    Verdict.CONFIRMED: "PASS",
    Verdict.REFUTED: "FAIL",
    Verdict.INCONCLUSIVE: "ERROR",
    Verdict.BLOCKED: "MISS",
    Verdict.NOT_APPLICABLE: "SKIP",
}
RUNGS: dict[str, KcidbStatus] = {"passed": "PASS", "failed": "FAIL", "blocked": "MISS", "skipped": "SKIP"}


def document(night: Night, issues: Sequence[KnownIssue]) -> KcidbLike:
    """An ended night: its claims, the rungs and figures of its runs, and the issues that it failed by."""
    recognised = recognise(night, issues)
    tests = [*_claims(night), *(test for run in night.runs for test in _of_run(night, run))]
    known = {test.id for test in tests}
    incidents = []
    for failure, matching in recognised.failures:
        rung = failure.rung and failure.run and _id(night, failure.run.number, failure.rung)
        test = rung if rung in known else _id(night, night.claim or "night")
        for issue in matching[:1] if test in known else ():
            incidents.append(
                KcidbIncident(
                    id=f"{test}:{issue.id}",
                    origin=ORIGIN,
                    issue_id=f"{ORIGIN}:{issue.id}",
                    issue_version=1,
                    test_id=test,
                    present=True,
                )
            )
    return KcidbLike(
        version=KcidbVersion(major=5, minor=3),
        tests=tests,
        issues=[_issue(issue) for issue in recognised.issues],
        incidents=incidents,
        runs=len(night.runs),
    )


def _claims(night: Night) -> Iterator[KcidbTest]:
    claims = [(each.claim, each.verdict, each.reason) for each in night.claims]
    if not claims:  # it ended before it knew what it was about
        claims = [(night.claim or "night", night.verdict, night.reason)]
    for name, verdict, reason in claims:
        yield KcidbTest(
            id=_id(night, name),
            origin=ORIGIN,
            path=f"lab.claims.{name}",
            status=VERDICTS[verdict],
            comment=reason,
            start_time=night.started,
            duration=night.seconds,
            number=None,
            environment=_environment(night),
        )


def _of_run(night: Night, run: ClimbRecord) -> Iterator[KcidbTest]:
    judged = run.claim or night.claim
    for row in run.rungs:
        informs = judged in list(Claim) and row.rung in LADDER and LADDER.informs(row.rung, Claim(judged))
        failed = row.status == "failed"
        yield KcidbTest(
            id=_id(night, run.number, row.rung),
            origin=ORIGIN,
            path=f"lab.rungs.{row.rung}",
            status="DONE" if failed and informs else "ERROR" if row.inconclusive else RUNGS[row.status],
            comment=row.observed,
            start_time=run.started,
            duration=row.seconds,
            number=None,
            environment=_environment(night),
        )
    for place, figure in enumerate(run.figures):
        name = figure.name.replace(", ", "_").replace(" ", "_")
        yield KcidbTest(
            id=_id(night, run.number, f"{name}.{place}"),
            origin=ORIGIN,
            path=f"lab.figures.{name}",
            status="DONE",
            comment=figure.name,
            start_time=run.started,
            duration=None,
            number=KcidbNumber(value=figure.value, unit=figure.unit),
            environment=_environment(night),
        )


def _environment(night: Night) -> KcidbEnvironment | None:
    if not night.cell:
        return None
    return KcidbEnvironment(comment=cell_phrase(night), misc=cell_document(night.cell, night.host))


def _issue(issue: KnownIssue) -> KcidbIssue:
    return KcidbIssue(
        id=f"{ORIGIN}:{issue.id}",
        version=1,
        origin=ORIGIN,
        report_url=issue.url,
        report_subject=issue.title,
        culprit=KcidbCulprit(
            code=issue.culprit in ("code", "theory"),
            tool=issue.culprit == "tool",
            harness=issue.culprit == "host",
        ),
        comment=issue.words,
    )


def _id(night: Night, *parts: object) -> str:
    return ":".join([ORIGIN, night.uuid, *(str(part).replace(" ", "_") for part in parts)])

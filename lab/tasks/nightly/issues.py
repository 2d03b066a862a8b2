"""nightly.issues: the known issues, and which nights failed by them."""

from __future__ import annotations

from rich.console import RenderableType

from lab.core.showing import table
from lab.documents.issues import KnownIssueEntry, NightlyIssues
from lab.history.model import Night
from lab.nights import known
from lab.nights.keeping import opened
from lab.workflow.session import Reply, Session


def issues(session: Session) -> Reply:
    """The issues of known-issues.toml, and the nights on record whose failures match. Raises UsageError."""
    known_issues = known.read(session)
    nights: list[Night] = []
    if session.history_file.exists():
        with opened(session) as history:
            nights = history.nights()
    matches: dict[str, list[Night]] = {issue.id: [] for issue in known_issues}
    for night in nights:
        for issue in known.recognise(night, known_issues).issues:
            matches[issue.id].append(night)
    rows = [
        KnownIssueEntry(
            id=issue.id,
            title=issue.title,
            url=issue.url,
            culprit=issue.culprit,
            state=issue.state,
            by=issue.by,
            since=issue.since.isoformat(),
            closed=issue.closed.isoformat() if issue.closed else None,
            nights=[night.id for night in matches[issue.id]],
            last=next((night.started for night in matches[issue.id]), None),
        )
        for issue in known_issues
    ]
    shown: list[RenderableType] = ["no known issues: known-issues.toml says how one is written"]
    if rows:
        lines = [
            (
                row.id,
                row.state,
                row.culprit,
                row.since,
                str(len(row.nights)),
                (row.last or "")[:10],
                row.title,
            )
            for row in rows
        ]
        shown = [table(("issue", "state", "culprit", "since", "nights", "last", "title"), lines)]
    return Reply.of(NightlyIssues(issues=rows), *shown)

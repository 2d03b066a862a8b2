"""nightly.history."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lab.core.errors import UsageError
from lab.core.showing import table
from lab.documents.nights import HistoryEvent, NightlyHistory
from lab.history import model as figures
from lab.nights.keeping import opened
from lab.nights.showing import style
from lab.workflow.session import Reply, Session


def history(session: Session, limit: int = 14) -> Reply:
    """The newest nights, newest first; all of them for a limit of 0. Raises UsageError, HistoryError."""
    if limit < 0:
        raise UsageError(f"--limit {limit} is less than no night", hint="0 shows all")
    with opened(session) as past:
        nights, events = past.nights(limit or -1), past.events()

    def show(console: Console) -> None:
        rows = []
        for night in nights:
            boots = night.samples(figures.NESTED_BOOT)
            rows.append(
                (
                    str(night.id),
                    night.started[:16].replace("T", " "),
                    night.claim,
                    Text(night.verdict or night.state, style(night.verdict)),
                    f"{len(night.runs)} of {night.planned}",
                    f"{boots[0]:.1f} s" if boots else "",
                    Text("; ".join(finding.text for finding in night.findings)),
                )
            )
        head = ("night", "started", "claim", "verdict", "runs", "L2 boot", "findings")
        console.print(table(head, rows) if rows else "no nights: `bin/invoke nightly.run` is the first")
        for at, text in events:
            console.print(f"{at[:16]} {text}", style="yellow", soft_wrap=True)

    document = NightlyHistory(
        file=str(session.history_file),
        events=[HistoryEvent(at=at, text=text) for at, text in events],
        nights=[night.as_dict() for night in nights],
    )
    return Reply(document.as_json(), show)

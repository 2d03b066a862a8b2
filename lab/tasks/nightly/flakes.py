"""nightly.flakes."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from lab.core.errors import UsageError
from lab.core.showing import table
from lab.documents.flakes import FlakyCell, NightlyFlakes, RungRateEntry
from lab.history.flakes import rates
from lab.history.model import cell_document
from lab.nights.keeping import opened
from lab.nights.showing import phrase
from lab.workflow.session import Reply, Session


def flakes(session: Session, limit: int = 0, all_: bool = False) -> Reply:
    """How often each rung did not hold, in each cell, over the last `limit` nights; all of them for 0.

    A person sees the rungs that did not always pass; with `all_` every one. Raises UsageError, HistoryError.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is less than no night", hint="0 looks at all")
    with opened(session) as past:
        nights = past.nights(limit or -1)
    cells = [
        FlakyCell(
            host=each.host,
            cell=cell_document(each.cell, each.host),
            nights=each.nights,
            rungs=[RungRateEntry.model_validate(rung) for rung in each.rungs],
        )
        for each in rates(nights)
    ]
    shown: list[RenderableType] = []
    for cell, each in zip(cells, rates(nights), strict=True):
        rungs = [rung for rung in cell.rungs if all_ or rung.failed or rung.inconclusive]
        word = "night" if cell.nights == 1 else "nights"
        shown.append(f"{phrase(each.cell)}{f', host {cell.host}' if cell.host else ''}: {cell.nights} {word}")
        head = ("rung", "tried", "failed", "inconclusive", "did not pass", "95 % interval", "")
        shown.append(
            table(head, [_row(rung) for rung in rungs]) if rungs else "  every rung passed each time"
        )
    return Reply.of(
        NightlyFlakes(nights=len(nights), cells=cells), *(shown or ["no night knows its cell yet"])
    )


def _row(rung: RungRateEntry) -> tuple[str | Text, ...]:
    numbers = (str(rung.tried), str(rung.failed), str(rung.inconclusive), f"{rung.rate:.1%}")
    interval = f"{rung.low:.1%} to {rung.high:.1%}"
    return (rung.rung, *numbers, interval, Text("flaky", "yellow") if rung.flaky else "")

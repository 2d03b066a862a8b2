"""How steps look: a live list with elapsed times on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lab.steps import Event

_MARKS = {"finished": "[green]✓[/]", "failed": "[red]✗[/]"}
_INFORMS = "[blue]i[/]"


class PlainSink:
    """One timestamped line per event; progress at most every five seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            now = time.monotonic()
            if now - self._last.get(event.step, 0.0) < 5.0:
                return
            self._last[event.step] = now
        word = {
            "started": "start",
            "finished": "done ",
            "failed": "FAIL ",
            "note": "     ",
            "progress": "   … ",
        }
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        text = " ".join(part for part in (_amount(event), event.text) if part)
        took = f" ({event.seconds:.1f} s)" if event.kind in ("finished", "failed") else ""
        mark = "info " if event.informs else word[event.kind]
        line = f"{clock} {mark} {event.name}{took}{': ' + text if text else ''}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveSink:
    """Running steps with their elapsed time at the bottom; ended ones scroll away above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: OrderedDict[int, tuple[Event, float]] = OrderedDict()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if event.kind == "started":
            self._running[event.step] = (event, time.monotonic())
        elif event.kind == "progress" and event.step in self._running:
            self._running[event.step] = (event, self._running[event.step][1])
        elif event.kind == "note":
            self._console.print(f"    [dim]{escape(event.text)}[/]", highlight=False)
        elif event.kind in _MARKS:
            self._running.pop(event.step, None)
            indent = "  " if event.parent else ""
            mark = _INFORMS if event.informs else _MARKS[event.kind]
            tail = f"  [dim]{escape(event.text)}[/]" if event.text else ""
            self._console.print(
                f"{indent}{mark} {event.name} [dim]{event.seconds:.1f} s[/]{tail}",
                highlight=False,
            )

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for event, since in list(self._running.values()):
            what = " ".join(part for part in (_amount(event), event.text) if part)
            table.add_row(
                "[cyan]▸[/]", event.name, f"{time.monotonic() - since:.0f} s", f"[dim]{escape(what[:70])}[/]"
            )
        return table


def _amount(event: Event) -> str:
    if event.done is None:
        return ""
    if event.total:
        return f"{100 * event.done / event.total:.0f} %"
    return f"{event.done:.0f}"

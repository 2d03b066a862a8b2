"""How steps look: a live list with elapsed times on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from datetime import datetime

from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.core.characters import one_line
from lab.core.steps import Event
from lab.core.tell import Terminal

_MARKS = {"finished": ("✓", "green"), "failed": ("✗", "red")}
_INFORMS = ("i", "blue")


class PlainSink:
    """One timestamped line per event; progress at most every five seconds."""

    def __init__(self, console: Terminal) -> None:
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
        text = one_line(f"{_amount(event)} {event.text}")
        took = f" ({event.seconds:.1f} s)" if event.kind in ("finished", "failed") else ""
        mark = "info " if event.informs else word[event.kind]
        line = f"{clock} {mark} {event.name}{took}{': ' + text if text else ''}"
        self._console.print(line, soft_wrap=True)


class LiveSink:
    """Running steps with their elapsed time at the bottom; ended ones scroll away above.

    A lab.core.screen.Display: it draws on standard error alone, while it is shown and a step has begun.
    """

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._running: OrderedDict[int, tuple[Event, float]] = OrderedDict()
        self._live: Live | None = None
        self._shown = False
        self._lock = threading.RLock()

    def show(self) -> None:
        with self._lock:
            self._shown = True
            if self._running:
                self._draw()

    def hide(self) -> None:
        with self._lock:
            self._shown = False
            if self._live:
                self._live.stop()
                self._live = None

    def _draw(self) -> None:
        """Begin to draw: with a Live of its own each time, since one remembers how many lines were its."""
        if self._shown and not self._live:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def __call__(self, event: Event) -> None:
        if event.kind == "started":
            self._running[event.step] = (event, time.monotonic())
            with self._lock:
                self._draw()
        elif event.kind == "progress" and event.step in self._running:
            self._running[event.step] = (event, self._running[event.step][1])
        elif event.kind == "note":
            self._console.print(Text(f"    {one_line(event.text)}", "dim"))
        elif event.kind in _MARKS:
            self._running.pop(event.step, None)
            mark = _INFORMS if event.informs else _MARKS[event.kind]
            line = Text("  " if event.parent else "")
            line.append(*mark).append(f" {event.name} ").append(f"{event.seconds:.1f} s", "dim")
            if event.text:
                line.append(f"  {one_line(event.text)}", "dim")
            self._console.print(line)

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for event, since in list(self._running.values()):
            what = one_line(f"{_amount(event)} {event.text}")
            table.add_row(
                Text("▸", "cyan"), event.name, f"{time.monotonic() - since:.0f} s", Text(what[:70], "dim")
            )
        return table


def _amount(event: Event) -> str:
    if event.done is None:
        return ""
    if event.total:
        return f"{100 * event.done / event.total:.0f} %"
    return f"{event.done:.0f}"

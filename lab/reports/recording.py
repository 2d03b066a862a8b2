"""A run as its terminal showed it: an SVG that moves by itself, or an asciicast, from its steps.jsonl."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.characters import one_line, printable
from lab.documents.reports import ReportStep
from lab.reports import wording
from lab.reports.html.environment import render
from lab.reports.model import ReportedRun

COLUMNS = 100
_ROW, _TOP, _LEFT, _CHARACTER = 18.0, 46.0, 14.0, 7.83
_MARKS = {
    "finished": ("✓", "good"),
    "failed": ("✗", "bad"),
    "informs": ("i", "note"),
}
_LOOKS = {"good": "32", "bad": "31", "note": "34", "plain": "0", "work": "36"}
"""The colours, as a terminal has them (SGR)."""
_PAUSE = 3.0
"""Seconds that an asciicast rests on its end."""


@dataclass(frozen=True)
class RecordedLine:
    """A line of the terminal: a mark with its look, then text; `at` is in seconds of the recording."""

    at: float
    mark: str
    look: str
    text: str
    dim: str = ""
    """The rest of the line, dimmed."""


@dataclass(frozen=True)
class RunningLine:
    """What is at work below the lines: shown from `at` for `seconds`, below so many lines."""

    at: float
    seconds: float
    below: int
    text: str


@dataclass(frozen=True)
class Recording:
    """Lines that stay, what ran meanwhile, and how long all of it takes to be seen."""

    command: str
    lines: Sequence[RecordedLine]
    running: Sequence[RunningLine]
    seconds: float
    real_seconds: float


def record(run: ReportedRun, seconds: float = 0.0) -> Recording:
    """What a person saw of the run. It is shown in `seconds`; for 0 in as many as it took.

    Every line is of a step that is on record; what is longer than the terminal is wide ends in an ellipsis.
    """
    spans = [span for span in run.steps.spans if span.state != "cut short"]
    real = max((span.start + span.seconds for span in spans), default=0.0)
    scale = seconds / real if seconds and real else 1.0
    informing, short = wording.informing(run), _shortener(run)
    lines = []
    for span in sorted(spans, key=lambda each: each.start + each.seconds):
        state = "informs" if span.state == "failed" and span.name in informing else span.state
        mark, look = _MARKS[state]
        indent = "  " if span.parent else ""
        head = f"{span.name} {span.seconds:.1f} s"
        words = _cut(short(span.text), COLUMNS - len(indent) - len(head) - 6)
        lines.append(RecordedLine((span.start + span.seconds) * scale, indent + mark, look, head, words))
    verdict = run.verdict.value
    look = {"confirmed": "good", "refuted": "bad"}.get(verdict, "note")
    end = real * scale
    reason = _cut(f"{run.claim.value}: {verdict}: {short(str(run.document['reason']))}", COLUMNS)
    lines.append(RecordedLine(end, "", look, reason))
    verb = run.folder.name.rsplit("-", 1)[-1] if run.folder else "up"
    return Recording(f"bin/invoke lab.{verb}", lines, _running(spans, lines, scale), end, real)


def svg(recording: Recording) -> str:
    """An SVG that plays once when it is seen. Where nothing may move it shows the whole at once."""
    width = COLUMNS * _CHARACTER + 2 * _LEFT
    return render(
        "recording.svg",
        recording=recording,
        width=round(width),
        height=round(_TOP + (len(recording.lines) + 1) * _ROW),
        left=_LEFT,
        character=_CHARACTER,
        row=lambda number: _TOP + number * _ROW,
    )


def asciicast(recording: Recording) -> str:
    """The same for a player of terminals: asciicast, version 2."""
    head = {"version": 2, "width": COLUMNS, "height": len(recording.lines) + 2, "title": recording.command}
    events: list[tuple[float, str, str]] = [(0.0, "o", f"$ {recording.command}\r\n")]
    for line in recording.lines:
        mark = f"\x1b[{_LOOKS[line.look]}m{line.mark}\x1b[0m " if line.mark else ""
        dim = f"  \x1b[2m{line.dim}\x1b[0m" if line.dim else ""
        text = line.text if line.mark else f"\x1b[{_LOOKS[line.look]}m{line.text}\x1b[0m"
        events.append((round(line.at, 3), "o", f"{mark}{text}{dim}\r\n"))
    events.append((round(recording.seconds + _PAUSE, 3), "o", ""))
    return "\n".join([json.dumps(head), *(json.dumps(event) for event in events)]) + "\n"


def _running(spans: Sequence[ReportStep], lines: Sequence[RecordedLine], scale: float) -> list[RunningLine]:
    """Between any two moments at which a step began or ended, what was at work."""
    moments = sorted({time for span in spans for time in (span.start, span.start + span.seconds)})
    shown = []
    for begin, end in itertools.pairwise(moments):
        names = [span.name for span in spans if span.start <= begin and span.start + span.seconds >= end]
        if names and (end - begin) * scale >= 0.05:
            below = sum(line.at <= begin * scale + 1e-6 for line in lines)
            shown.append(RunningLine(begin * scale, (end - begin) * scale, below, ", ".join(names)))
    return shown


def _shortener(run: ReportedRun) -> Callable[[str], str]:
    """What makes a text fit to be seen by others: one line, and paths within the state folder."""
    folders = [
        Path(str(run.document["evidence"] or "")),
        run.folder or Path(),
    ]  # a folder may have been moved
    states = [f"{folder.parents[2]}/" for folder in folders if folder.is_absolute() and len(folder.parts) > 4]

    def short(text: str) -> str:
        for state in states:
            text = text.replace(state, "")
        return one_line(printable(text))

    return short


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)].rstrip() + "…"

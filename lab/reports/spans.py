"""When each step of a run began and how long it took: from its step log (lab.core.steps.JsonLines)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lab.core.characters import printable
from lab.documents.reports import ReportStep

_JUMP_SECONDS = 5.0
"""More than this between what the wall clock and the monotonic clock say of one step is a jump."""


@dataclass(frozen=True)
class Timeline:
    """All steps of one run, in the order in which they began."""

    spans: tuple[ReportStep, ...] = ()
    clock_jumped: bool = False
    """The wall clock was set during the run: starts cannot be compared across that moment."""

    @property
    def seconds(self) -> float:
        return max((span.start + span.seconds for span in self.spans), default=0.0)

    def depth(self, span: ReportStep) -> int:
        """How many steps it is nested in."""
        parents = {other.step: other.parent for other in self.spans}
        depth, passed, parent = 0, {span.step}, span.parent
        while parent in parents and parent not in passed:
            depth += 1
            passed.add(parent)
            parent = parents[parent]
        return depth


@dataclass
class _Open:
    name: str
    parent: int
    start: float
    state: Literal["finished", "failed", "cut short"] = "cut short"
    seconds: float | None = None
    text: str = ""
    jump: float = 0.0


def read(path: Path) -> Timeline:
    """The timeline in a step log; an empty one when there is none. A torn line (a crash) is passed over."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return Timeline()
    return timeline(_events(lines))


def timeline(events: Iterable[dict[str, Any]]) -> Timeline:
    """A step that never ended was cut short: it is as long as the log."""
    steps: dict[int, _Open] = {}
    first: datetime | None = None
    last = 0.0
    for event in events:
        at = event["at"]
        first = first or at
        moment = (at - first).total_seconds()
        last = max(last, moment)
        number = event["step"]
        if event["kind"] == "started":
            steps.setdefault(number, _Open(event["name"], event["parent"], moment))
        elif event["kind"] in ("finished", "failed") and number in steps:
            step = steps[number]
            step.state, step.seconds, step.text = event["kind"], event["seconds"], event["text"]
            step.jump = abs(moment - step.start - event["seconds"])
    spans = [
        ReportStep(
            step=number,
            parent=step.parent,
            name=printable(step.name),
            start=round(max(0.0, step.start), 3),
            seconds=round(last - step.start if step.seconds is None else step.seconds, 3),
            state=step.state,
            text=printable(step.text),
        )
        for number, step in steps.items()
    ]
    jumped = any(step.jump > _JUMP_SECONDS for step in steps.values())
    return Timeline(tuple(sorted(spans, key=lambda span: (span.start, span.step))), jumped)


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The readable events, with `at` as a time and every member there."""
    for line in lines:
        try:
            event = json.loads(line)
            yield {
                "kind": str(event["kind"]),
                "step": int(event["step"]),
                "parent": int(event.get("parent", 0)),
                "name": str(event.get("name", "")),
                "at": datetime.fromisoformat(event["at"]),
                "seconds": max(0.0, float(event.get("seconds", 0.0))),
                "text": str(event.get("text", "")),
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            continue

"""What differs between two runs, from what their evidence folders recorded, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.core.characters import one_line
from lab.core.errors import LabError
from lab.core.files import read_object
from lab.documents.differences import DiffChange, DiffLog, DiffPart, DiffRung, LabDiff, Recorded
from lab.ladder.rungs import LADDER
from lab.model.domain import Outcome, Verdict
from lab.records import evidence
from lab.reports.decisive import LOGS, only_in
from lab.reports.side import Part, RunSide
from lab.reports.wording import NOT_LOOKED_AT

_MOST_LINES = 25
_MOST_RUNS = 200
"""How many runs the search for the last good one goes back."""
_NAMED = ("settings", "versions", "cell", "host", "packages", "kvm", "vm")
"""The parts that a headline names, those a person changes first."""
_OF_ONE_RUN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|127\.0\.0\.1:\d+|\b\d+(?:\.\d+)? s\b"
)
_ALIKE = ("system", "cpu", "pc")
RED = (Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.BLOCKED)
"""The verdicts that make somebody ask what changed."""


def difference(before: RunSide, after: RunSide) -> LabDiff:
    """All that differs. What only one side recorded, or none, is named as that, and not compared."""
    rungs, rungs_recorded = _rungs(before.outcomes, after.outcomes)
    first = next((rung for rung in rungs if rung.outcome), None)
    old, new = before.parts(), after.parts()
    parts = [_part(*key, old[key], new[key]) for key in old]
    return LabDiff(
        before=before.described(),
        after=after.described(),
        headline=_headline(first, rungs_recorded, parts),
        first=first,
        rungs=rungs,
        rungs_recorded=rungs_recorded,
        parts=parts,
        logs=[_log(name, before, after) for name in LOGS],
    )


def last_good(folder: Path) -> Path | None:
    """The newest run before the one of `folder`, of its lab, that confirmed the same claim on the same host
    and engine; None where there is none.

    Of a run that came to no verdict neither is known: then it is the newest run that confirmed its own claim.
    """
    subject = _subject(folder)
    paths = evidence.runs(folder.parent.parent, folder.parent.name)
    earlier = paths[: paths.index(folder)] if folder in paths else []
    for path in list(reversed(earlier))[:_MOST_RUNS]:
        document = _document(path)
        if document.get("verdict") != Verdict.CONFIRMED.value:
            continue
        if subject is None or ((good := _subject(path)) and _alike(good, subject)):
            return path
    return None


def since_last_good(folder: Path) -> LabDiff | None:
    """What differs from the last good run; None where there is none."""
    good = last_good(folder)
    return difference(RunSide(good), RunSide(folder)) if good else None


def not_recorded(diff: LabDiff) -> list[str]:
    """What could not be compared, a sentence each."""
    missing = {
        "before": f"{diff.before.name} did not record",
        "after": f"{diff.after.name} did not record",
    }
    kept: dict[str, list[str]] = {"before": [], "after": [], "both": []}
    rows = [("rungs", diff.rungs_recorded), *((part.part, part.recorded) for part in diff.parts)]
    rows += [(log.file, log.recorded) for log in diff.logs if log.recorded != "neither"]
    for name, recorded in rows:
        if recorded != "both":
            kept[{"before": "after", "after": "before", "neither": "both"}[recorded]].append(name)
    sentences = [f"{words}: {', '.join(kept[side])}" for side, words in missing.items() if kept[side]]
    return sentences + ([f"neither recorded: {', '.join(kept['both'])}"] if kept["both"] else [])


def shown(change: DiffChange, part: str) -> tuple[str, str]:
    """A change's two values for a person: nothing is said to be absent that was only not recorded."""
    absent = "not installed" if part == "packages" else "not recorded"
    values = (change.before, change.after)
    old, new = (absent if value is None else value or "empty" for value in values)
    return old, new


def _rungs(
    before: Mapping[str, Outcome] | None, after: Mapping[str, Outcome] | None
) -> tuple[list[DiffRung], Recorded]:
    recorded = _recorded(before, after)
    if before is None or after is None:
        return [], recorded
    rows = []
    for name in LADDER.names:
        old, new = before.get(name), after.get(name)
        words = [outcome.status.value if outcome else NOT_LOOKED_AT for outcome in (old, new)]
        texts = [outcome.observed if outcome else "" for outcome in (old, new)]
        outcome = words[0] != words[1]
        if outcome or _steady(texts[0]) != _steady(texts[1]):
            rows.append(
                DiffRung(
                    rung=name,
                    before=words[0],
                    after=words[1],
                    before_observed=texts[0],
                    after_observed=texts[1],
                    outcome=outcome,
                )
            )
    return rows, recorded


def _steady(observed: str) -> str:
    """Without what is another in every run: the VM's uuid, ports, durations."""
    return _OF_ONE_RUN.sub("#", observed)


def _part(part: str, source: str, before: Part | None, after: Part | None) -> DiffPart:
    names = [] if before is None or after is None else list(dict.fromkeys([*before, *after]))
    old, new = before or {}, after or {}
    changes = [
        DiffChange(what=name, before=old.get(name), after=new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]
    return DiffPart(
        part=part,
        recorded=_recorded(before, after),
        source=source,
        changes=changes,
        same=len(names) - len(changes),
    )


def _log(name: str, before: RunSide, after: RunSide) -> DiffLog:
    texts = before.text(name), after.text(name)
    if texts[0] is None or texts[1] is None:
        return DiffLog(file=name, recorded=_recorded(*texts), gone=(), new=(), left_out=0)
    old, new = (LOGS[name](text) for text in texts if text is not None)
    gone, came = only_in(old, new), only_in(new, old)
    left_out = max(0, len(gone) - _MOST_LINES) + max(0, len(came) - _MOST_LINES)
    return DiffLog(
        file=name, recorded="both", gone=gone[:_MOST_LINES], new=came[:_MOST_LINES], left_out=left_out
    )


def _recorded(before: object, after: object) -> Recorded:
    if before is None:
        return "neither" if after is None else "after"
    return "before" if after is None else "both"


def _headline(first: DiffRung | None, recorded: Recorded, parts: Sequence[DiffPart]) -> str:
    if first is not None:
        observed = f": {one_line(first.after_observed)}" if first.after_observed else ""
        ladder = f"{first.rung} changed first: {first.before} before, {first.after} now{observed}"
    elif recorded == "both":
        ladder = "no rung turned out differently"
    else:
        ladder = "which rung changed first is not known: a run left no rungs"
    by_name: dict[str, DiffPart] = {part.part: part for part in parts}
    named = [
        f"{change.what} {' → '.join(shown(change, name))}"
        for name in _NAMED
        for change in by_name[name].changes
        if name == "packages" or None not in (change.before, change.after)  # else it was only not looked at
    ]
    if not named:
        compared = any(part.recorded == "both" for part in parts if part.part in _NAMED)
        return f"{ladder}; " + (
            "nothing else that was recorded changed" if compared else "nothing else is known"
        )
    more = f", and {len(named) - 3} more" if len(named) > 3 else ""
    return f"{ladder}; changed beside it: {'; '.join(named[:3])}{more}"


def _document(folder: Path) -> Mapping[str, object]:
    try:
        return read_object(folder / "validation.json")
    except (OSError, ValueError, LabError):
        return {}


def _subject(folder: Path) -> tuple[object, ...] | None:
    """The host's id, claim, engine and the host's kind; None where they are not known."""
    document = _document(folder)
    cell = document.get("cell")
    host = cell.get("host") if isinstance(cell, Mapping) else None
    if not isinstance(cell, Mapping) or not isinstance(host, Mapping):
        return None
    return (
        host.get("id"),
        document.get("claim"),
        cell.get("engine"),
        *(host.get(name, "") for name in _ALIKE),
    )


def _alike(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Of one subject; a run of before hosts had ids is of any host that is like its own."""
    return one[1:] == other[1:] and (one[0] == other[0] or not (one[0] and other[0]))

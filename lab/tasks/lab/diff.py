"""lab.diff: what differs between two runs or nights, and what changed first on the ladder."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType

from lab.config.names import check_name
from lab.core import caller
from lab.core.errors import UsageError
from lab.core.showing import table
from lab.core.similar import choices
from lab.documents.differences import LabDiff
from lab.history.model import Night
from lab.nights import changed
from lab.nights.keeping import opened
from lab.records import evidence
from lab.reports.difference import difference, last_good, not_recorded, shown
from lab.reports.side import RunSide
from lab.workflow.session import Reply, Session

_RUNS_HINT = "`invoke lab.evidence` lists the runs, `invoke nightly.history` the nights"


def diff(session: Session, before: str, after: str, name: str, last_good: bool = False) -> Reply:
    """What differs from `before` to `after`: runs by folder or path, nights by number, uuid or key.

    With `last_good` one name is enough, that of the later run (the newest of the lab when empty): it is
    compared with the last that confirmed. Raises UsageError for what is no run, and where none confirmed.
    """
    check_name(name)
    if last_good:
        if after:
            raise UsageError("--last-good finds the earlier run itself: name the later one alone")
        answer = _since_good(session, before, name)
    elif before and after:
        answer = _between(session, before, after, name)
    else:
        raise UsageError("compare what with what? Name two, or one and --last-good", hint=_RUNS_HINT)
    return Reply.of(answer, *_lines(answer))


def _since_good(session: Session, wanted: str, name: str) -> LabDiff:
    if night := _night(session, wanted):
        with opened(session) as history:
            good = changed.last_good(history, night)
        if good is None:
            raise UsageError(
                f"no night before night {wanted} confirmed its claim there and left evidence",
                hint=_RUNS_HINT,
            )
        return _of_nights(good, night)
    folder = _run(session, wanted, name) if wanted else _newest(session, name)
    good_run = last_good(folder)
    if good_run is None:
        raise UsageError(
            f"no run of lab {folder.parent.name} before {folder.name} confirmed its claim there",
            hint=_RUNS_HINT,
        )
    return difference(RunSide(good_run), RunSide(folder))


def _between(session: Session, before: str, after: str, name: str) -> LabDiff:
    nights = [_night(session, wanted) for wanted in (before, after)]
    if nights[0] and nights[1]:
        return _of_nights(nights[0], nights[1])
    sides = []
    for wanted, night in zip((before, after), nights, strict=True):
        if night is None:
            sides.append(RunSide(_run(session, wanted, name)))
        elif run := changed.run_of(night):
            sides.append(RunSide(Path(run.evidence), night.id))
        else:
            raise _nothing_left(night)
    return difference(*sides)


def _of_nights(before: Night, after: Night) -> LabDiff:
    answer = changed.between(before, after)
    if answer is None:
        raise _nothing_left(after if changed.run_of(before) else before)
    return answer


def _nothing_left(night: Night) -> UsageError:
    return UsageError(f"no run of night {night.id} left evidence that is still there", hint=_RUNS_HINT)


def _night(session: Session, wanted: str) -> Night | None:
    """The night of that number, uuid or key; None for what names none."""
    if not wanted or not session.history_file.exists():
        return None
    with opened(session) as history:
        nights = history.nights()
    night = next((night for night in nights if wanted in (str(night.id), night.uuid, night.key)), None)
    if night is None and wanted.isdecimal():
        raise UsageError(f"there is no night {wanted}", hint=_RUNS_HINT)
    return night


def _newest(session: Session, name: str) -> Path:
    paths = evidence.runs(session.store.evidence_folder, name)
    if not paths:
        raise UsageError(f"there is no run of a lab {name}", hint=_RUNS_HINT)
    return paths[-1]


def _run(session: Session, wanted: str, name: str) -> Path:
    """The evidence folder of that name, of lab `name` first; or at that path."""
    known = [path for path in evidence.runs(session.store.evidence_folder) if path.name == wanted]
    if own := [path for path in known if path.parent.name == name] or known:
        return own[0]
    path = caller.path(wanted, home=True)
    if (path / "run.json").is_file():
        return path.resolve()
    names = [path.name for path in evidence.runs(session.store.evidence_folder, name)]
    near = f"like it: {choices(wanted, names)}; " if names else ""
    raise UsageError(
        f"there is no run {wanted!r}, and no evidence folder of that path", hint=near + _RUNS_HINT
    )


def _lines(diff: LabDiff) -> list[RenderableType]:
    """For a person: what changed first, then each thing that differs, then what was not recorded."""
    lines: list[RenderableType] = [diff.headline, ""]
    for word, side in (("before", diff.before), ("now", diff.after)):
        night = f"night {side.night}: " if side.night else ""
        came = f"{side.claim} {side.verdict}: {side.reason}" if side.verdict else "came to no verdict"
        lines.append(f"{word + ':':<8}{night}{side.name}: {came}")
    if diff.rungs:
        rows = [
            (row.rung, row.before, row.after, row.after_observed or row.before_observed) for row in diff.rungs
        ]
        lines += ["", table(("rung", "before", "now", "observed"), rows)]
    changes = [
        (part.part, change.what, *shown(change, part.part)) for part in diff.parts for change in part.changes
    ]
    lines += ["", table(("of", "what", "before", "now"), changes)] if changes else []
    for log in diff.logs:
        if log.gone or log.new:
            lines += ["", f"decisive lines of {log.file}:"]
            lines += [*(f"  - {line}" for line in log.gone), *(f"  + {line}" for line in log.new)]
            lines += [f"  {log.left_out} more"] if log.left_out else []
    missing = not_recorded(diff)
    return [*lines, *([""] if missing else []), *missing]

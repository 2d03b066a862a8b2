"""lab.record: a run as its terminal showed it, for a page or a player of terminals."""

from __future__ import annotations

from pathlib import Path

from lab.config.names import check_name
from lab.core import caller
from lab.core.errors import UsageError
from lab.core.files import PRIVATE, PUBLIC, write_atomic
from lab.documents.reports import LabRecording
from lab.records import evidence
from lab.reports import RunFolder, recording
from lab.workflow.session import Reply, Session

_MAKERS = {".svg": recording.svg, ".cast": recording.asciicast}
_FILE = "recording.svg"


def record(session: Session, name: str, run: str = "", to: str = "", seconds: int = 20) -> Reply:
    """Record `run` (the newest with a verdict when empty) into `to` (beside its evidence when empty).

    The file's ending says what it is: an SVG, or an asciicast. It is seen in `seconds`, 0: in as many as the
    run took. Raises UsageError.
    """
    check_name(name)
    target = caller.path(to, home=True) if to else Path(_FILE)
    make = _MAKERS.get(target.suffix)
    if make is None or seconds < 0:
        wrong = (
            f"--seconds {seconds} is less than none"
            if make
            else f"{target.name} ends in neither .svg nor .cast"
        )
        raise UsageError(wrong, hint="`invoke lab.record --to lab-up.svg --seconds 20`")
    paths = [
        path
        for path in evidence.runs(session.store.evidence_folder, name)
        if (path / "validation.json").is_file() and run in ("", path.name)
    ]
    if not paths:
        raise UsageError(
            f"lab {name} has no run {run!r} with a verdict"
            if run
            else f"no run of a lab {name} came to a verdict",
            hint="`invoke lab.evidence` lists the runs",
        )
    recorded = recording.record(RunFolder(paths[-1]).run, float(seconds))
    if not to:
        target = paths[-1] / _FILE
    write_atomic(target, make(recorded), PUBLIC if to else PRIVATE)
    document = LabRecording(
        lab=name,
        run=paths[-1].name,
        path=str(target),
        lines=len(recorded.lines),
        seconds=recorded.seconds,
        real_seconds=recorded.real_seconds,
    )
    return Reply.of(document, f"{len(recorded.lines)} lines, {recorded.seconds:.0f} s: {target}")

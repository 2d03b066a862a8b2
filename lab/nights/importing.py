"""Taking in a night that ran on another host: checked, weighed anew, and written down once."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from lab.core import files, lock
from lab.core.errors import InterruptedByUser, LabError
from lab.documents.climbs import LabUp
from lab.documents.nights import NightArchive, NightEntry
from lab.history.model import (
    Claimed,
    ClimbRecord,
    Delivery,
    Figure,
    Night,
    NightFinding,
    RungRecord,
    cell_columns,
)
from lab.history.store import History
from lab.host.identity import is_id
from lab.ladder.document import Validation
from lab.model.document import SchemaError
from lab.nights import archive, keeping, keys, rejudging
from lab.nights.archive import NotTakenError
from lab.nights.reporting import report
from lab.workflow.session import Session

T = TypeVar("T")


def take(session: Session, history: History, path: Path) -> tuple[Night, bool]:
    """Take the night in the archive `path` into the history; what is on record, and whether it is new here.

    Its evidence goes into a folder of its own before the night is on record, so that a killed import is made
    again by the next one. Its report is drawn anew here. Raises NotTakenError: it is no such archive, or no
    night that can be taken; BlockedError: the disk has no room for it; HistoryError, OSError.
    """
    here = session.settings.state_dir / "imported"
    files.private_folder(here)
    with lock.when_free(here / "lock", "importing nights", say=session.steps.note):
        work = here / ".part"
        shutil.rmtree(work, ignore_errors=True)
        known: list[Night] = []

        def place(manifest: NightArchive) -> Path | None:
            night = _checked(manifest, path)
            if on_record := history.by_uuid(night.uuid):
                known.append(on_record)
                return None
            if night.host == session.host_id:
                raise _refused(path, "it says that it ran here, where nothing is on record of it")
            needed = sum(each.bytes for each in manifest.files)
            session.factories.require_space(here, needed, f"importing {path.name}")
            return files.private_folder(work)

        try:
            manifest = archive.read(path, place)
            if known:
                return known[0], False
            night = rejudging.weighed(_founded(_checked(manifest, path), work))
            final = keeping.imported(session, night.uuid)
            shutil.rmtree(final, ignore_errors=True)  # of an import that was killed
            work.rename(final)
            files.sync_folder(here)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        taken = history.take(_at_home(night, final))
    _report(history, taken)
    return history.night(taken.id), True


def _checked(manifest: NightArchive, path: Path) -> Night:
    """The night in an archive. Raises NotTakenError where it is none that can be taken."""
    night = _night(manifest.night)
    faults = {
        "its key is none": bool(night.key) and not keys.is_key(night.key),
        "it has not ended": not night.verdict,
        "its uuid is none": not _is_uuid(night.uuid),
        "it names no host": not is_id(night.host),
        "its runs are not numbered": [run.number for run in night.runs]
        != list(range(1, len(night.runs) + 1)),
    }
    if wrong := [fault for fault, applies in faults.items() if applies]:
        raise _refused(path, "; ".join(wrong))
    return night


def _refused(path: Path, why: str) -> NotTakenError:
    return NotTakenError(
        f"the night in {path.name} cannot be taken: {why}",
        hint="make the archive with `invoke nightly.export`, with the same version of lab",
        evidence=[path],
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _night(entry: NightEntry) -> Night:
    """The night of a document, as History has it. Its paths are still the archive's."""
    members = entry.as_json()
    runs = [
        _made(
            ClimbRecord,
            run
            | {
                "cell": cell_columns(run["cell"]) if run["cell"] else None,
                "claims": [_made(Claimed, claim) for claim in run["claims"]],
                "rungs": [_made(RungRecord, rung) for rung in run["rungs"]],
                "figures": [_made(Figure, figure) for figure in run["figures"]],
            },
        )
        for run in members["runs"]
    ]
    return _made(
        Night,
        members
        | {
            "verdict": members["verdict"] or "",
            "cell": cell_columns(members["cell"]) if members["cell"] else None,
            "claims": [_made(Claimed, claim) for claim in members["claims"]],
            "runs": runs,
            "findings": [_made(NightFinding, finding) for finding in members["findings"]],
            "deliveries": [_made(Delivery, delivery) for delivery in members["deliveries"]],
        },
    )


def _made(kind: type[T], members: Mapping[str, Any]) -> T:
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in members.items() if name in names})


def _founded(night: Night, folder: Path) -> Night:
    """The night with those runs unfounded whose own evidence says something else than the night does."""
    runs = [run if _agrees(run, folder) else rejudging.unfounded(run) for run in night.runs]
    return replace(night, runs=runs)


def _agrees(run: ClimbRecord, folder: Path) -> bool:
    """Whether a run is what its validation.json says; where it has none, as one that was cut short, it is."""
    file = folder / Path(run.evidence).name / "validation.json"
    if not run.evidence or not file.is_file():
        return True
    try:
        raw = json.loads(file.read_bytes())
        document = (LabUp if raw.get("schema") == LabUp.tag else Validation).read(raw)
    except (SchemaError, ValueError, AttributeError, RecursionError):
        file.unlink()  # nothing is drawn of it
        return False
    rungs = [(row.rung, row.status.value, row.inconclusive) for row in document.rungs]
    same = (
        keeping.is_lab(document.lab.name)
        and rungs == [(row.rung, row.status, row.inconclusive) for row in run.rungs]
        and cell_columns(document.cell.as_json()) == run.cell
        and (document.verdict.value, document.claim.value) == (run.verdict, run.claim)
    )
    if not same:
        file.unlink()
    return same


def _at_home(night: Night, folder: Path) -> Night:
    """The night with the paths that its evidence has here; empty where there is none."""

    def here(path: str) -> str:
        kept = folder / Path(path).name
        return str(kept) if path and kept.is_dir() else ""

    runs = [replace(run, evidence=here(run.evidence)) for run in night.runs]
    own = here(night.evidence) or str(files.private_folder(folder / "night"))
    return replace(night, runs=runs, evidence=own, report="", untold=False, boot_id="")


def _report(history: History, night: Night) -> None:
    try:
        history.set_report(night.id, str(report(night, history)))
    except InterruptedByUser:
        raise
    except Exception as error:  # of what another host handed in: the night is on record all the same
        what = error.what if isinstance(error, LabError) else repr(error)
        history.note(night.id, f"the report could not be drawn: {what}")

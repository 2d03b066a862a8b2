"""nightly.export and nightly.import: nights carried from the host they ran on to one that gathers them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from lab.core import caller
from lab.core.errors import BlockedError, ExitCode, UsageError
from lab.core.files import PUBLIC, write_json
from lab.documents.nights import ExportedNight, ImportedNight, LeftOut, NightlyExport, NightlyImport
from lab.history.model import Night
from lab.nights import archive, importing, kcidb, keeping, keys, known
from lab.nights.archive import NotTakenError
from lab.nights.keeping import opened
from lab.workflow.session import Reply, Session

ARCHIVE, KCIDB_LIKE = "archive", "kcidb-like"
"""The forms that a night is exported in."""


def export(session: Session, night: str = "", to: str = "", since: str = "", form: str = ARCHIVE) -> Reply:
    """Write a night (its key, uuid or number) into the file `to`, with its evidence.

    With `since`, a day, every night with a key of that day or later that ran on this host, each into an
    archive of its own in the folder `to`. `form` is ARCHIVE, or KCIDB_LIKE for the night in kernel CI's words
    (nightly.kcidb-like/1), without evidence. Raises UsageError, OSError.
    """
    if form not in (ARCHIVE, KCIDB_LIKE):
        raise UsageError(f"--format {form} is unknown", hint=f"{ARCHIVE} or {KCIDB_LIKE}")
    if not to or bool(night) == bool(since):
        raise UsageError(
            "what is to be exported, and where to, is not plain",
            hint="`invoke nightly.export KEY --to FILE`, or `invoke nightly.export --since DAY --to FOLDER`",
        )
    target = caller.path(to)
    with opened(session) as history:
        if night:
            if target.is_dir():
                raise UsageError(f"{target} is a folder", hint="name the file that is to be written")
            wanted = [(keys.find(history, night, session.host_id), target)]
        else:
            nights = history.since(_day(since), session.host_id)
            wanted = [(each, target / _name(each, form)) for each in nights]
            target.mkdir(parents=True, exist_ok=True)
    exported = [_exported(session, each, file, form) for each, file in wanted]
    lines = [f"night {each.night}, {each.key or each.uuid}: {each.verdict}: {each.file}" for each in exported]
    lines += [f"left out: {out.path}: {out.why}" for each in exported for out in each.left_out]
    return Reply.of(NightlyExport(nights=exported), *(lines or ["no such night is on record"]))


def import_(session: Session, file: str) -> Reply:
    """Take the night in an archive, or those in all archives of a folder, into this host's history.

    One that is on record stays as it is. One that is refused costs no other; the exit code is then BLOCKED.
    """
    path = caller.path(file)
    paths = sorted(path.rglob(f"*{archive.ENDING}")) if path.is_dir() else [path]
    if not path.exists():
        raise UsageError(f"there is no {path}", hint="`invoke nightly.export KEY --to FILE` makes one")
    results = []
    with opened(session) as history:
        for each in paths:
            with session.steps.step("nightly.import", each.name) as step:
                try:
                    night, new = importing.take(session, history, each)
                except NotTakenError as error:
                    step.result = error.what
                    results.append(ImportedNight(file=str(each), state="refused", why=error.what, night=None))
                    continue
                state = "imported" if new else "known"
                step.result = f"{state}: {night.key or night.uuid}: {night.verdict}"
                results.append(ImportedNight(file=str(each), state=state, why="", night=night.as_dict()))
        keeping.prune(session, history)
    refused = any(result.state == "refused" for result in results)
    lines = [f"{Path(result.file).name}: {result.state}{_of(result)}" for result in results]
    code = ExitCode.BLOCKED if refused else ExitCode.DONE
    return Reply.of(NightlyImport(nights=results), *(lines or [f"no archive is in {path}"]), code=code)


def _of(result: ImportedNight) -> str:
    night = result.night
    if night is None:
        return f": {result.why}"
    return f": {night.key or night.uuid}, {night.claim or 'night'} {night.verdict}: {night.reason}"


def _exported(session: Session, night: Night, file: Path, form: str) -> ExportedNight:
    if not night.verdict:
        raise BlockedError(f"night {night.id} still runs", hint="export it when it has ended")
    with session.steps.step("nightly.export", night.key or night.uuid) as step:
        files: int = 0
        left_out: tuple[LeftOut, ...] = ()
        if form == KCIDB_LIKE:
            write_json(file, kcidb.document(night, known.read(session)).as_json(), PUBLIC)
        else:
            written = archive.write(night, keeping.folders(session, night), file)
            files, left_out = len(written.files), written.left_out
        size = file.stat().st_size
        step.result = f"{file}, {size / 1e6:.1f} MB"
    return ExportedNight(
        night=night.id,
        uuid=night.uuid,
        key=night.key,
        verdict=night.verdict,
        file=str(file),
        bytes=size,
        files=files,
        left_out=left_out,
    )


def _name(night: Night, form: str) -> str:
    ending = archive.ENDING if form == ARCHIVE else ".json"
    return f"{night.key.replace('/', '_')}-{night.uuid}{ending}"


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"{text!r} is no day", hint="such as 2026-12-01") from None

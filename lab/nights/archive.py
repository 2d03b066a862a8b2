"""One night as one file: its document and its evidence, each with its hash, to be carried to another host.

An archive comes from a host that is not trusted: what is in it is checked against its own list, and bounded,
before and while it is written down (lab.formats.plaintar).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lab import __version__
from lab.core import redact
from lab.core.errors import BlockedError, InterruptedByUser
from lab.core.files import open_private, private_folder, sync_folder
from lab.documents.nights import ArchivedFile, LeftOut, NightArchive
from lab.formats import plaintar
from lab.formats.plaintar import PlainTarError
from lab.history.model import Night
from lab.model.document import SchemaError
from lab.reports import writing

DOCUMENT = "night.json"
"""The first member: nightly.archive/1."""
ENDING = ".night.tar.gz"

FILES, FILE_BYTES, WHOLE_BYTES, DOCUMENT_BYTES = 4000, 32 << 20, 512 << 20, 16 << 20
"""The most of each: what evidence has, several times over."""

_PAGES = (".html", ".htm", ".xhtml", ".svg", ".xml")
"""What a browser may run something of: never taken from another host, but drawn anew."""
_BINARY = (".png",)


class NotTakenError(BlockedError):
    """An archive that is not taken, for what it is: another try with the same file ends so, too."""


def write(night: Night, folders: Sequence[Path], target: Path) -> NightArchive:
    """Write an ended night with its evidence folders into the file `target`, wholly or not at all.

    What an archive cannot hold (links, files that are too large, paths that are not plain) is named in
    `left_out`. Raises OSError, and BlockedError where evidence changes meanwhile.
    """
    files, left_out = _listed(folders)
    document = night.as_dict() | {"evidence": Path(night.evidence).name, "report": ""}
    for run in document["runs"]:
        run["evidence"] = Path(run["evidence"]).name
    archive = NightArchive(
        night=document,
        exported=datetime.now(UTC).isoformat(timespec="seconds"),
        lab_version=__version__,
        files=[listed for listed, _ in files],
        left_out=left_out,
    )
    first = json.dumps(archive.as_json(), indent=1).encode()

    def members() -> Iterator[tuple[str, int, IO[bytes]]]:
        yield DOCUMENT, len(first), io.BytesIO(first)
        for listed, path in files:
            yield listed.path, listed.bytes, _opened(path)

    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open_private(part, "wb") as stream:
            try:
                plaintar.write(stream, members())
            except PlainTarError as error:
                raise BlockedError(f"night {night.id} could not be archived: {error}") from error
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)
    return archive


def read(path: Path, folder: Callable[[NightArchive], Path | None]) -> NightArchive:
    """Read the archive in the file `path`, to its end, and write its evidence where `folder` says.

    `folder` is given what the archive says of itself, and gives an empty folder, or None for nothing to be
    written. Texts are redacted, pages left out. Raises NotTakenError for what is no such archive, OSError.
    """
    try:
        with plaintar.reading(path) as reader:
            archive = _document(reader.first(DOCUMENT, DOCUMENT_BYTES))
            _check(archive)
            place = folder(archive)
            for listed in archive.files:
                blocks = reader.next(listed.path, listed.bytes)
                content = b"".join(blocks)
                if hashlib.sha256(content).hexdigest() != listed.sha256:
                    raise PlainTarError(f"{listed.path} is not what its hash says")
                if place and not _is_page(listed.path):
                    _keep(place / listed.path, content)
            reader.end()
            return archive
    except (PlainTarError, SchemaError) as error:
        raise NotTakenError(
            f"{path.name} is no whole archive of a night: {error}",
            hint="make it with `invoke nightly.export`, and copy it in binary, whole",
            evidence=[path],
        ) from error


def _document(content: bytes) -> NightArchive:
    try:
        members: Any = json.loads(content)
        if not isinstance(members, dict):
            raise PlainTarError(f"{DOCUMENT} is no JSON object")
        return NightArchive.read(members)
    except RecursionError:
        raise PlainTarError(f"{DOCUMENT} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise PlainTarError(f"{DOCUMENT} is no text: {error}") from error
    except json.JSONDecodeError as error:
        raise PlainTarError(f"{DOCUMENT} is no JSON: {error}") from error


def _check(archive: NightArchive) -> None:
    """Raise PlainTarError for a list of files that no export has."""
    if len(archive.files) > FILES or sum(each.bytes for each in archive.files) > WHOLE_BYTES:
        raise PlainTarError(f"it lists more than {FILES} files or {WHOLE_BYTES >> 20} MiB")
    taken: set[str] = set()
    for listed in archive.files:
        if not plaintar.is_plain(listed.path) or "/" not in listed.path or listed.bytes > FILE_BYTES:
            raise PlainTarError(f"it lists {listed.path[:200]!r} of {listed.bytes} bytes")
        taken.add(listed.path.casefold())
    inner = {str(parent) for path in taken for parent in PurePosixPath(path).parents}
    if len(taken) != len(archive.files) or taken & inner:
        raise PlainTarError("it lists a path twice, or one as file and folder")


def _is_page(path: str) -> bool:
    return path.lower().endswith(_PAGES) or PurePosixPath(path).name in writing.file_names()


def _keep(path: Path, content: bytes) -> None:
    if not path.name.lower().endswith(_BINARY):
        content = redact.clean(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    private_folder(path.parent)
    with open_private(path, "wb") as stream:
        stream.write(content)


def _listed(folders: Sequence[Path]) -> tuple[list[tuple[ArchivedFile, Path]], list[LeftOut]]:
    """What of these folders can be in an archive, and what cannot, by folder and name."""
    files: list[tuple[ArchivedFile, Path]] = []
    left_out: list[LeftOut] = []
    whole = 0
    for folder in folders:
        for path in sorted(_walk(folder)):
            name = path.relative_to(folder.parent).as_posix()
            try:
                with _opened(path) as stream:
                    size = os.fstat(stream.fileno()).st_size
                    why = _hindrance(name, size, whole + size, len(files))
                    if not why:
                        digest = hashlib.file_digest(stream, "sha256").hexdigest()
                        files.append((ArchivedFile(path=name, bytes=size, sha256=digest), path))
                        whole += size
            except InterruptedByUser:
                raise
            except OSError as error:
                why = f"it cannot be read: {error.strerror}"
            if why:
                left_out.append(LeftOut(path=name, why=why))
    return files, left_out


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is no link, and every link; of what is in a linked folder nothing."""
    for base, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        yield from (Path(base) / name for name in (*names, *links))


def _hindrance(name: str, size: int, whole: int, count: int) -> str:
    if not plaintar.is_plain(name):
        return "its path is not plain"
    if size > FILE_BYTES or whole > WHOLE_BYTES or count >= FILES:
        return f"an archive holds {FILES} files, {FILE_BYTES >> 20} MiB each, {WHOLE_BYTES >> 20} MiB in all"
    return ""


def _opened(path: Path) -> io.BufferedReader:
    """A regular file, opened. OSError for anything else."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(0, "no regular file", str(path))
    return stream

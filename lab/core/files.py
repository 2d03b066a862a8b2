"""Writes that survive a crash: temp file, fsync, rename, fsync of the folder.

What lab writes is for this user alone, unless a caller says PUBLIC.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from lab.core.deadline import check_cancelled
from lab.core.errors import BlockedError, InconclusiveError

PRIVATE, PUBLIC = 0o600, 0o644
"""Modes of files. Public are the image cache's, the scheduler's, and what a user asked for by its path."""


def private_folder(folder: Path) -> Path:
    """Make `folder`, and what is missing above it, for this user alone; one that is there becomes so.

    Returns it. One that is somebody else's keeps its mode.
    """
    for missing in [path for path in folder.parents if not path.exists()][::-1]:
        missing.mkdir(exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    keep_private(folder)
    return folder


def open_private(path: Path, mode: Literal["a", "ab", "wb"], buffering: int = -1) -> IO[Any]:
    """Open a file for writing that only this user can read, whoever could before."""
    stream = open(path, mode, buffering, opener=lambda name, flags: os.open(name, flags, PRIVATE))  # noqa: SIM115
    keep_private(path)
    return stream


def keep_private(path: Path) -> None:
    """Take from others what they may do with a file or folder of this user's. A device keeps its mode."""
    facts = path.stat()
    plain = stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)
    if plain and facts.st_uid == os.geteuid() and facts.st_mode & 0o077:
        path.chmod(facts.st_mode & 0o700)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes, mode: int = PRIVATE) -> None:
    """Replace `path` with `content`, wholly or not at all. A folder that is missing is made as private."""
    if mode & 0o077:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.parent.exists():
        private_folder(path.parent)
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a disk that is full does not say what could not be written
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, mode: int = PRIVATE) -> None:
    """Replace `path` with `value` as JSON, as `write_atomic` does; what JSON has no type for, as text."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", mode)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte order mark that some editors put in front.

    Raises OSError, UnicodeDecodeError.
    """
    return path.read_text(encoding="utf-8-sig")


class DamagedFileError(InconclusiveError, ValueError):
    """A file that is not what its name says: torn by a crash, or another program's. A ValueError too, so
    that who can do without it catches it as the JSON parser's own."""

    def __init__(self, path: Path, why: str, hint: str = "") -> None:
        super().__init__(
            f"{path} is damaged, or another program's: {why}",
            hint=hint or f"look at it; if nobody needs it, `rm {shlex.quote(str(path))}`, and run this again",
            evidence=[path],
        )


def read_json(path: Path) -> Any | None:
    """The JSON in `path`, or None when there is no such file. Raises DamagedFileError, OSError."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        return None
    except RecursionError:
        raise DamagedFileError(path, "it is nested too deeply") from None
    except ValueError as error:
        raise DamagedFileError(path, f"no JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty when there is no such file. Raises DamagedFileError, OSError."""
    content = read_json(path)
    if content is None and not path.exists():
        return {}
    if not isinstance(content, dict):
        raise DamagedFileError(path, "no JSON object")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML in `path`. Raises OSError, tomllib.TOMLDecodeError, UnicodeDecodeError."""
    return tomllib.loads(read_text(path))


@contextlib.contextmanager
def building(final: Path) -> Iterator[Path]:
    """A fresh folder beside `final` that becomes `final` when the block ends well.

    A folder left by a killed process is removed first; callers hold the lock on `final`.
    """
    work = final.with_name(f".{final.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        for item in work.iterdir():
            if item.is_file():
                with item.open("rb") as stream:
                    os.fsync(stream.fileno())
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
        sync_folder(final.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sha256(path: Path) -> str:
    """The hex SHA-256 of a whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            check_cancelled()
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise BlockedError unless `folder`'s file system has `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BlockedError(
            f"{purpose} needs {needed / 2**30:.1f} GiB in {folder}, and {free / 2**30:.1f} GiB is free",
            hint="free some space (`invoke image.prune` removes unused images), or move lab's folders "
            "with LAB_STATE_DIR and LAB_CACHE_DIR",
        )


def space_used(folder: Path) -> int:
    """Bytes that a folder's files take on the disk: no holes, hard links once, nothing behind symbolic links.

    What goes away meanwhile is left out; a folder that is not there takes nothing.
    """
    allocated = dict[tuple[int, int], int]()
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            allocated[status.st_dev, status.st_ino] = status.st_blocks * 512  # POSIX counts in 512 bytes
    return sum(allocated.values())

"""Writes that survive a crash: temp file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.deadline import check_cancelled
from lab.errors import BlockedError


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replace `path` with `content`, wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", mode)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte order mark that some editors put in front.

    Raises OSError, UnicodeDecodeError.
    """
    return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> Any | None:
    """The JSON in `path`, or None when there is no such file. Raises OSError, ValueError."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        return None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


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

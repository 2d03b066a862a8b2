"""A tar archive of plain files, compressed: nothing else can be in it, and of a file only its path and size.

What reads one takes no header that this module would not have written, and never more bytes than it was to
expect: links, devices, other paths, extended headers and bombs are refused where they begin.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lab.core.deadline import check_cancelled

_BLOCK = 1 << 20
_LONGEST = 200
"""Characters of a path: what a header surely has room for."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._@+,=~-]*")
_END = bytes(2 * tarfile.BLOCKSIZE)


class PlainTarError(ValueError):
    """It is no such archive; the text says where and why."""


def is_plain(path: str) -> bool:
    """Whether a member can have this path: relative, of plain names, none of which is hidden or leads up."""
    return len(path) <= _LONGEST and all(
        _PART.fullmatch(part) and part.rstrip(" .") == part for part in path.split("/")
    )


def write(target: IO[bytes], members: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """Write (path, bytes, content)s; the same members give the same archive. Raises PlainTarError.

    A content is closed once it is written.
    """
    with gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as packed:
        for path, size, content in members:
            if not is_plain(path):
                raise PlainTarError(f"{path!r} cannot be a member's path")
            packed.write(_header(path, size))
            written = 0
            with content:
                while block := content.read(_BLOCK):
                    check_cancelled()
                    written += packed.write(block)
            if written != size:
                raise PlainTarError(f"{path} changed while it was read")
            packed.write(bytes(-size % tarfile.BLOCKSIZE))
        packed.write(_END)


class Reader:
    """The members of an archive, in their order; each is asked for by what it is to be, or PlainTarError."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = gzip.GzipFile(fileobj=stream, mode="rb")

    def first(self, path: str, limit: int) -> bytes:
        """The whole content of the next member, which has that path and no more than `limit` bytes."""
        header = self._read(tarfile.BLOCKSIZE)
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "surrogateescape")
        except tarfile.TarError as error:
            raise PlainTarError(f"where {path} should begin there is {error}") from error
        if not 0 <= member.size <= limit or header != _header(path, member.size):
            raise PlainTarError(
                f"{member.name[:_LONGEST]!r} of {member.size} bytes is in the place of {path}"
            )
        return b"".join(self._content(path, member.size))

    def next(self, path: str, size: int) -> Iterator[bytes]:
        """The next member, which has that path and size, in blocks of a MiB; to be read to its end."""
        if self._read(tarfile.BLOCKSIZE) != _header(path, size):
            raise PlainTarError(f"something else is in the place of the file {path}")
        return self._content(path, size)

    def end(self) -> None:
        """There is nothing more."""
        if self._read(len(_END)) != _END or self._read(1):
            raise PlainTarError("it does not end after its last file")

    def _content(self, path: str, size: int) -> Iterator[bytes]:
        left = size
        while left:
            check_cancelled()
            block = self._read(min(left, _BLOCK))
            if not block:
                raise PlainTarError(f"it ends within {path}: {left} bytes are missing")
            yield block
            left -= len(block)
        padding = -size % tarfile.BLOCKSIZE
        if self._read(padding) != bytes(padding):
            raise PlainTarError(f"something is hidden after {path}")

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise PlainTarError(f"it is cut short or damaged: {error}") from error


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """The archive in a file. Raises OSError."""
    with path.open("rb") as stream:
        yield Reader(stream)


def _header(path: str, size: int) -> bytes:
    member = tarfile.TarInfo(path)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)

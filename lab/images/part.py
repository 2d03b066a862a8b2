"""The unfinished file of a download, and what must be known to go on with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
from pydantic import TypeAdapter

from lab.core import files, web
from lab.core.web import TransientError

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})$")


@dataclass(frozen=True)
class Origin:
    """Which file a part is a part of. `total` is its whole length in bytes, where known."""

    url: str
    sha256: str
    etag: str = ""
    last_modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range may carry: a strong ETag, else the date; empty when there is neither."""
        return self.etag if _is_strong(self.etag) else self.last_modified


_ORIGIN = TypeAdapter(Origin)


class Part:
    """`target`.part and, beside it, its origin in `target`.part.json.

    The origin is on disk before the first byte, so a killed download can be taken up again.
    Of an `immutable` file no server can have another version, so none is asked which it has.
    """

    def __init__(self, target: Path, url: str, sha256: str, *, immutable: bool = False) -> None:
        self.path = target.with_name(target.name + ".part")
        self.facts = target.with_name(target.name + ".part.json")
        self._blank = Origin(url, sha256)
        self._immutable = immutable
        self.origin = self._read()
        if self.size() and not self.whole() and not self._immutable and not self.origin.validator:
            self.drop()

    def size(self) -> int:
        """The bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def whole(self) -> bool:
        """Whether every byte is there, as far as the length tells."""
        return self.path.exists() and self.origin.total == self.size()

    def drop(self) -> None:
        """Remove the part: it is of no file that is wanted."""
        self.path.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.origin = self._blank

    def range_headers(self) -> dict[str, str]:
        """The headers that ask for the rest; empty to ask for everything."""
        if not self.size():
            return {}
        if self._immutable:
            return {"Range": f"bytes={self.size()}-"}
        if not self.origin.validator:
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": self.origin.validator}

    def goes_on(self, response: requests.Response) -> bool:
        """Make ready for this response's body: True when it goes on where the part ends.

        Raises TransientError, with the part dropped, when the answer cannot belong to it.
        """
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding != "identity":
            raise TransientError(f"the server packed the file with {coding} though it was asked not to")
        if response.status_code == 206:
            self._check_range(response)
            return True
        self.drop()
        self.origin = Origin(
            self._blank.url,
            self._blank.sha256,
            response.headers.get("ETag", ""),
            response.headers.get("Last-Modified", ""),
            web.length(response.headers),
        )
        files.write_json(self.facts, vars(self.origin), files.PUBLIC)
        return False

    def open(self) -> BinaryIO:
        """For appending, unbuffered: what was received survives a kill."""
        return self.path.open("ab", buffering=0)

    def _check_range(self, response: requests.Response) -> None:
        wrong = ""
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        length = web.length(response.headers)
        etag = response.headers.get("ETag", "")
        if not match:
            wrong = "without saying which part of the file it is"
        else:
            first, last, total = (int(number) for number in match.groups())
            if first != self.size() or last != total - 1 or length not in (None, last - first + 1):
                wrong = f"that is not the one asked for ({match.group()}, from {self.size()})"
            elif self.origin.total not in (None, total) or self._is_another(etag):
                wrong = "of another version of the file"
        if wrong:
            self.drop()
            raise TransientError(f"the server sent a part {wrong}")

    def _is_another(self, etag: str) -> bool:
        return not self._immutable and _differ(etag, self.origin.etag)

    def _read(self) -> Origin:
        try:
            origin = _ORIGIN.validate_python(files.read_json(self.facts))
        except (ValueError, OSError):
            origin = self._blank
        if self.path.exists() and (origin.url, origin.sha256) == (self._blank.url, self._blank.sha256):
            return origin
        self.drop()
        return self._blank


def _is_strong(etag: str) -> bool:
    return etag.startswith('"')


def _differ(first: str, other: str) -> bool:
    return _is_strong(first) and _is_strong(other) and first != other

"""Which digest a tag stood for when it was first pulled, kept so that a moved tag is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core import files, lock
from lab.core.errors import BlockedError
from lab.images.registry.reference import Reference

FILE = "image-digests.json"


class _LearnedModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Change(_LearnedModel):
    """The tag's digest was `old` when it was learned; the registry said `new`, first at `seen` (UTC)."""

    old: str
    new: str
    seen: datetime

    def __str__(self) -> str:
        return f"{self.new} since {self.seen:%Y-%m-%d %H:%M} UTC or before, {self.old} in use"


class LearnedDigest(_LearnedModel):
    """The digest a tag stood for when it was pulled (sha256:…), and what it stands for since."""

    digest: str
    learned: datetime
    change: Change | None = None


class _File(_LearnedModel):
    schema_: Literal["lab.image-digests/1"] = Field(default="lab.image-digests/1", alias="schema")
    tags: dict[str, LearnedDigest] = Field(default_factory=dict)


class Learned:
    """`image-digests.json` in `folder`, shared by all labs; written whole, by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def get(self, reference: Reference) -> LearnedDigest | None:
        """What was learned of a tag, None if nothing was. Raises BlockedError for a damaged file."""
        return self._read().tags.get(reference.canonical)

    def learn(self, reference: Reference, digest: str) -> LearnedDigest:
        """Keep `digest` for the tag, in place of an older one."""
        learned = LearnedDigest(digest=digest, learned=_now())
        with self._changing() as tags:
            tags[reference.canonical] = learned
        return learned

    def observe(self, reference: Reference, digest: str) -> Change | None:
        """Compare the tag's digest of now with the one that was learned; a change is remembered.

        None when they are the same, or nothing was learned.
        """
        with self._changing() as tags:
            learned = tags.get(reference.canonical)
            if learned is None:
                return None
            change = learned.change
            if digest == learned.digest:
                change = None
            elif change is None or change.new != digest:
                change = Change(old=learned.digest, new=digest, seen=_now())
            if change != learned.change:
                tags[reference.canonical] = learned.model_copy(update={"change": change})
            return change

    @contextmanager
    def _changing(self) -> Iterator[dict[str, LearnedDigest]]:
        with lock.when_free(lock.beside(self.path), f"the file {FILE}"):
            before = self._read()
            tags = dict(before.tags)
            yield tags
            if tags != before.tags:
                files.write_json(self.path, _File(tags=tags).model_dump(mode="json", by_alias=True))

    def _read(self) -> _File:
        try:
            return _File.model_validate(files.read_json(self.path) or {})
        except (ValidationError, ValueError) as error:
            raise BlockedError(
                f"{self.path} is damaged, so it is not known which images are the right ones",
                hint="remove it: lab then learns each tag's digest anew",
                evidence=[self.path],
            ) from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)

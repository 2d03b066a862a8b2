"""Debian packages, taken out of an archive by Python alone: no apt, no dpkg, no root rights, on any system.

`release` checks the archive's signature, `index` reads its packages and says which are needed, and
`extract` fetches them and unpacks their files. `DebianArchive` is all of it for one suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.steps import Step
from lab.core.web import HttpSession, Patience
from lab.images.archive.extract import fetch, unpack
from lab.images.archive.index import Package, needed, read_index
from lab.images.archive.release import ArchiveKeys, read_release

__all__ = ["DebianArchive", "ArchiveKeys", "Package"]


@dataclass(frozen=True)
class DebianArchive:
    """The `main` component of a suite for an architecture. `base` is the archive's address as apt has it."""

    base: str
    suite: str
    keys: ArchiveKeys
    session: HttpSession
    patience: Patience = field(default_factory=Patience)
    architecture: str = "amd64"

    def resolve(self, names: Sequence[str], deadline: Deadline) -> list[Package]:
        """The packages called `names` and all they depend on, by name; recommendations are left out.

        Asks the archive. Raises BlockedError: it cannot be reached, its signature, date or hashes do not fit,
        or it has no such package; DeadlineError, InterruptedByUser.
        """
        release = read_release(self.session, self._base, self.suite, self.keys, deadline, self.patience)
        index = read_index(self.session, release, self.architecture, deadline, self.patience)
        return needed(index, names)

    def check(self, deadline: Deadline) -> None:
        """Return if a signed release of the suite is there, and not out of date. Raises as `resolve` does.

        A server that does not answer is asked once more at most: a person waits.
        """
        hurried = replace(self.patience, attempts=2)
        read_release(self.session, self._base, self.suite, self.keys, deadline, hurried)

    def extract(
        self, packages: Sequence[Package], downloads: Path, output: Path, step: Step, deadline: Deadline
    ) -> None:
        """Write the files of `packages` into the tar file `output`, nothing configured.

        What is fetched stays in the folder `downloads`, so that a build that was ended goes on with it.
        Raises as `resolve` does.
        """
        fetched = fetch(self.session, self._base, packages, downloads, step, deadline, self.patience)
        unpack(fetched, output, deadline)

    @property
    def _base(self) -> str:
        return self.base.rstrip("/") + "/"

"""Packages fetched, checked against the index's hashes, and their files put into one tar file."""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Sequence
from pathlib import Path

from debian.arfile import ArError
from debian.debfile import DebFile

from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Step
from lab.core.web import HttpSession, Patience
from lab.images.archive.index import Package
from lab.images.download import download


def fetch(
    session: HttpSession,
    base: str,
    packages: Sequence[Package],
    downloads: Path,
    step: Step,
    deadline: Deadline,
    patience: Patience,
) -> list[Path]:
    """The packages' files in the folder `downloads`, named by their hashes, in the order of `packages`."""
    total = sum(package.size for package in packages)
    paths: list[Path] = []
    before = 0
    for package in packages:

        def report(
            done: int, _size: int | None, _rate: str, before: int = before, name: str = package.name
        ) -> None:
            step.progress(before + done, total, name)

        target = downloads / f"{package.sha256}.deb"
        paths.append(
            download(
                base + package.path,
                target,
                sha256=package.sha256,
                step=step,
                deadline=deadline,
                session=session,
                patience=patience,
                report=report,
                immutable=True,
            )
        )
        before += package.size
    return paths


def unpack(debs: Sequence[Path], output: Path, deadline: Deadline) -> None:
    """Write all files of the packages `debs` into the tar file `output`.

    Raises BlockedError when one is no Debian package, DeadlineError, InterruptedByUser.
    """
    with tarfile.open(output, "w") as tree:
        for path in debs:
            check_cancelled()
            if deadline.passed:
                raise DeadlineError(f"the packages were not unpacked in {deadline.seconds:.0f} s")
            with path.open("rb") as stream:
                try:
                    files = DebFile(fileobj=stream).data.tgz()
                except (ArError, tarfile.TarError, OSError) as error:
                    raise _no_package(path, error) from error
                try:
                    for member in files:
                        tree.addfile(member, files.extractfile(member) if member.isreg() else None)
                except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
                    raise _no_package(path, error) from error


def _no_package(path: Path, error: Exception) -> BlockedError:
    return BlockedError(f"{path.name} is no Debian package: {error}", evidence=[path])

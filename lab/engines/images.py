"""What every engine does with guest images: sees that one fits, runs qemu-img, prunes what it made."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError


def must_exist(base: Path) -> None:
    """Raise BlockedError when the base image is missing."""
    if not base.is_file():
        raise BlockedError(
            f"the base image {base} is missing",
            hint="`invoke image.list` shows the images; fetch or build it again",
        )


def must_fit(gib: int, needed: int) -> None:
    """Raise UsageError when a disk of `gib` GiB is smaller than an image of `needed` bytes."""
    if gib << 30 < needed:
        raise UsageError(
            f"a disk of {gib} GiB is smaller than its image ({needed / 2**30:.1f} GiB)",
            hint=f"set the disk to at least {-(-needed // 2**30)} GiB",
        )


class QemuImg:
    """The program qemu-img, for images that no process has open. `tool` is its name or path."""

    def __init__(self, tool: str = "qemu-img", seconds: float = 900.0) -> None:
        self._tool = tool
        self._seconds = seconds

    def run(self, *words: str | Path) -> str:
        """What one command prints. Raises BlockedError without the program, CommandError, DeadlineError."""
        return proc.run([self._tool, *words], deadline=Deadline.after(self._seconds)).out

    def info(self, path: Path, *options: str) -> dict[str, Any]:
        """The image's description. Raises CommandError, for example when it is in use or broken."""
        described: dict[str, Any] = json.loads(self.run("info", "--output=json", *options, path))
        return described

    def size(self, path: Path) -> int:
        """The bytes of the disk that the image holds."""
        return int(self.info(path)["virtual-size"])

    def grow(self, base: Path, target: Path, gib: int) -> Path:
        """Make `target` an empty qcow2 overlay of `gib` GiB on the qcow2 image `base`."""
        self.run("create", "-q", "-f", "qcow2", "-b", base.resolve(), "-F", "qcow2", target, f"{gib}G")
        return target


def prune(paths: Iterable[Path], name: re.Pattern[str], keep: Container[str]) -> list[tuple[Path, int]]:
    """Remove those of `paths` whose `image`, a group of the pattern `name`, is not in `keep`.

    Gives the path and the bytes on disk of each that was removed.
    """
    removed = []
    for path in sorted(paths):
        match = name.fullmatch(path.name)
        if match and match["image"] not in keep:
            removed.append((path, path.stat().st_blocks * 512))
            path.unlink()
    return removed

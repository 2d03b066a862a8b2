"""A checkout of this project, as its working tree is now."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.config.loading import PROJECT
from lab.core import proc
from lab.core.deadline import Deadline


def copy_project(target: Path) -> None:
    """Copy what git would take of the working tree."""
    listed = proc.run(
        ["git", "-C", PROJECT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        deadline=Deadline.after(60),
    )
    for name in filter(None, listed.out.split("\0")):
        source, copy = PROJECT / name, target / name
        if source.is_file() or source.is_symlink():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)

"""Where the user stands: bin/invoke itself works in the project's folder."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LAB_CWD"
"""What bin/invoke says of it: an absolute path."""


def folder() -> Path:
    """The folder in which the command was typed."""
    given = Path(os.environ.get(VARIABLE, ""))
    return given if given.is_absolute() and given.is_dir() else Path.cwd()


def path(given: str, *, home: bool = False) -> Path:
    """The file that the user means by `given`, absolute: a relative path is relative to `folder()`.

    With `home` a ~ at its beginning is a home folder, where no shell has made it one.
    """
    return folder() / (Path(given).expanduser() if home else given)

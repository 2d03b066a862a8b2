"""What this host is told from others by: an id made once, which is neither its name nor its processor."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from lab.core import files, lock

FILE = "host-id"
"""In the state folder. A copy of the folder on another machine is to lose it, or is taken for this one."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_id(text: str) -> bool:
    """Whether a host can have this id."""
    return _ID.fullmatch(text) is not None


def host_id(state: Path) -> str:
    """The id kept in the state folder; where there is none, a random UUID is made, which tells nothing else.

    Somebody may have written a name of their own there: letters, digits, `.`, `_`, `-`. Raises
    DamagedFileError for anything else, OSError where it cannot be kept.
    """
    path = state / FILE
    if not path.exists():
        if not state.exists():  # one that is there was made by its user, who may have let others in
            files.private_folder(state)
        with lock.when_free(lock.beside(path), "this host's id"):
            if not path.exists():
                files.write_atomic(path, f"{uuid.uuid4()}\n")
    try:
        text = files.read_text(path).strip()
    except UnicodeDecodeError as error:
        raise files.DamagedFileError(path, "no host's id") from error
    if not is_id(text):
        raise files.DamagedFileError(path, "no host's id")
    return text

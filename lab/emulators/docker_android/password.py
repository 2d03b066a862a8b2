"""The VNC password of a lab: made once, kept where only its owner reads it, never shown."""

from __future__ import annotations

import secrets
import string
from pathlib import Path

from lab.core import files, redact

_FILE = "vnc-password"
_LENGTH = 8
"""VNC's own authentication looks at no more."""


def known(folder: Path) -> str:
    """The lab's password, empty before it was made. Whatever is printed afterwards has it masked."""
    try:
        password = (folder / _FILE).read_text().strip()
    except FileNotFoundError:
        return ""
    redact.register(password)
    return password


def ensure(folder: Path) -> str:
    """The lab's password, made now if there is none."""
    if password := known(folder):
        return password
    letters = string.ascii_letters + string.digits
    made = "".join(secrets.choice(letters) for _ in range(_LENGTH))
    redact.register(made)
    files.write_atomic(folder / _FILE, made + "\n")
    return made

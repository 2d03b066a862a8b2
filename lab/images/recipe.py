"""What names an image that is built here: the files it is made by, on every system alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lab.core import files


def digest_of(sources: Path, builders: Iterable[Path], *more: str) -> str:
    """Hex digest of a recipe: all files below the folder `sources`, lab's modules `builders`, further words.

    A file whose name begins with a dot is no part of it: file managers and editors leave such.
    """
    digest = hashlib.sha256()
    own = sorted(path for path in sources.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in [*own, *builders]:
        digest.update(f"{path.name}\0{files.sha256(path)}\0".encode())
    for word in more:
        digest.update(f"{word}\0".encode())
    return digest.hexdigest()

"""Which labs stand on an image: marked in the cache itself, for labs of any state folder may share it.

<cache>/uses/<image id>/<lab uuid>.json   the lab's name and folder
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core import files
from lab.core.errors import LabError
from lab.records.labs import Lab

FOLDER = "uses"
"""In the image cache."""


class Use(BaseModel):
    """One mark. `folder` is the lab's own; `uuid` its marker."""

    model_config = ConfigDict(frozen=True)

    uuid: str
    lab: str
    folder: Path


def mark(cache: Path, image_id: str, use: Use) -> None:
    """Say that a lab stands on an image. Nothing is written when it is said already."""
    path = cache / FOLDER / image_id / f"{use.uuid}.json"
    if _read(path) != use:
        files.write_json(path, use.model_dump(mode="json"), files.PUBLIC)  # as the images are


def of(cache: Path, image_id: str) -> list[Use]:
    """The labs that stand on an image, or may: marks of labs that are gone are removed.

    One that cannot be read is some lab's that nobody can name: its folder is the mark itself then. Raises
    OSError for marks that may not be looked for.
    """
    uses, folder = [], cache / FOLDER / image_id
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix != ".json" or path.name.startswith("."):  # one that is being written
            continue
        use = _read(path)
        if use is None:
            if path.exists():  # not one that was dropped just now
                uses.append(Use(uuid=path.stem, lab="a lab whose mark cannot be read", folder=path))
        elif _is_over(use, image_id):
            path.unlink(missing_ok=True)
        else:
            uses.append(use)
    return uses


def marked(cache: Path) -> list[str]:
    """The images that have, or had, a mark."""
    folder = cache / FOLDER
    return sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []


def _is_over(use: Use, image_id: str) -> bool:
    """Whether that lab surely stands on it no more. In doubt it does: its disk may be on a file system that
    is not mounted, be another user's, or have a record that cannot be read.
    """
    try:
        if not use.folder.exists():
            return use.folder.parent.exists()
        record = Lab(use.folder).read()
    except (LabError, OSError):
        return False
    if record is None:
        return False
    return record.uuid != use.uuid or record.image not in ("", "unknown", image_id)


def _read(path: Path) -> Use | None:
    try:
        return Use.model_validate(files.read_json(path))
    except (ValidationError, ValueError, OSError):
        return None

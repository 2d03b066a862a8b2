"""Where rehearsals are at work: <state>/rehearsals/<uuid>/, a folder each, held while it runs.

The UUID is the mark of the PC in it. What a killed rehearsal left is known by its folder that nobody holds.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.core import lock
from lab.core.deadline import cleaning_up
from lab.core.errors import BusyError, InterruptedByUser, LabError
from lab.core.files import private_folder, sync_folder

PC = "pc"
"""The folder of the PC itself, in that of the rehearsal."""


@contextlib.contextmanager
def held(root: Path, verb: str) -> Iterator[Path]:
    """A new folder in `root` for one rehearsal. It goes at the end of the block, whichever way that comes."""
    private_folder(root)
    with contextlib.ExitStack() as stack:
        while True:
            folder = private_folder(root / str(uuid.uuid4()))
            try:
                stack.enter_context(lock.hold(folder / "lock", verb, "the rehearsal", make=False))
                break
            except (FileNotFoundError, BusyError):  # taken for a killed one's before it was held
                continue
        try:
            yield folder
        finally:
            with cleaning_up():
                _remove(folder)


def sweep(root: Path, verb: str, end: Callable[[str, Path], None], note: Callable[[str], None]) -> list[str]:
    """Remove what killed rehearsals left; the names of their folders. One that runs is left alone.

    `end` ends a PC of that mark and folder, if it runs. What cannot be removed is told by `note`, and
    left to the next time.
    """
    swept: list[str] = []
    for leftover in root.glob(".*.gone"):
        shutil.rmtree(leftover, ignore_errors=True)
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not _is_ours(folder):
            continue
        try:
            with lock.hold(folder / "lock", verb, "the rehearsal", make=False):
                end(folder.name, folder / PC)
                _remove(folder)
            swept.append(folder.name)
        except (BusyError, FileNotFoundError):  # it runs; or another command swept it
            continue
        except InterruptedByUser:
            raise
        except (LabError, OSError) as error:
            note(
                f"what a killed rehearsal left in {folder} could not be removed ({error}): the next one tries"
            )
    return swept


def _is_ours(folder: Path) -> bool:
    try:
        return str(uuid.UUID(folder.name)) == folder.name and folder.is_dir() and not folder.is_symlink()
    except ValueError:
        return False


def _remove(folder: Path) -> None:
    """The caller holds it. Renamed first, so that a kill in between leaves nothing that looks whole."""
    gone = folder.with_name(f".{folder.name}.gone")
    folder.rename(gone)
    sync_folder(gone.parent)
    shutil.rmtree(gone, ignore_errors=True)  # another command may be sweeping it away as well
    if gone.exists():
        shutil.rmtree(gone)

"""What the operating system refused, as errors a person can act on: the file, its owner, what mends it."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.core.errors import BlockedError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_MOVE = "move lab's folders with LAB_STATE_DIR and LAB_CACHE_DIR"
_OTHERS = {
    errno.EISDIR: ("is a folder, and a file is needed there", "move it away: {move}"),
    errno.EEXIST: ("is in the way", "move it away: {move}"),
    errno.EROFS: ("is on a file system that may only be read", f"mount it for writing, or {_MOVE}"),
    errno.ELOOP: ("is a symbolic link that leads back to itself", "remove it: rm {path}"),
    errno.ENAMETOOLONG: ("has too long a name", f"choose a shorter name, or {_MOVE} to a shorter path"),
    errno.EIO: ("could not be read or written: the disk does not work", "`dmesg` may say why"),
    errno.ESTALE: ("is on a network's file system that went away", f"mount it anew, or {_MOVE}"),
    errno.EMFILE: ("could not be opened: too many files are open", "`ulimit -n 4096` allows more"),
    errno.ENFILE: ("could not be opened: too many files are open on this host", "end other programs"),
    errno.EFBIG: ("has become larger than it may be", "`ulimit -f unlimited` lets it grow"),
    errno.EBUSY: ("is in use by the system", "`lsof {path}` may say by whom"),
}


def explain(error: OSError, ours: Sequence[Path] = ()) -> BlockedError | None:
    """`error` as a person can act on it; None for one that tells of a fault of lab's own.

    `ours` are lab's own folders: what is in them may be given to this user, a folder that is missing there
    was removed by somebody. The first of them is where a disk was full when the error names no file.
    """
    file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    if error.errno in _FULL:
        return _full(file, ours)
    if file is None:
        return None
    if error.errno in _DENIED:
        return _denied(file, ours)
    if error.errno == errno.ENOTDIR:
        return _error(_not_a_folder(file), "is no folder, and one is needed there", "move it away: {move}")
    if error.errno == errno.ENOENT and _owning(file, ours) and not os.path.lexists(file.parent):
        return _error(
            file.parent, "is gone: another command, or another program, removed it", "run this again"
        )
    if error.errno in _OTHERS:
        return _error(file, *_OTHERS[error.errno])
    return None


@contextlib.contextmanager
def explained(*ours: Path) -> Iterator[None]:
    """What `explain` can explain leaves this block as a BlockedError; any other OSError as it is."""
    try:
        yield
    except OSError as error:
        if plain := explain(error, ours):
            raise plain from error
        raise


def _error(file: Path, what: str, hint: str) -> BlockedError:
    path = shlex.quote(str(file))
    aside = shlex.quote(f"{file}.aside")
    return BlockedError(
        f"{file} {what}", hint=hint.format(path=path, move=f"mv {path} {aside}"), evidence=[file]
    )


def _full(file: Path | None, ours: Sequence[Path]) -> BlockedError:
    """Blocked, and never a verdict: what was found could not be written down."""
    where = file.parent if file else (ours[0] if ours else None)
    what = f"{file.name} could not be written" if file else "something could not be written"
    return BlockedError(
        f"the disk is full{f' where {where} is' if where else ''}: {what}",
        hint=f"free some space (`invoke image.prune` removes unused images), or {_MOVE}; "
        "then run the same command again",
    )


def _denied(file: Path, ours: Sequence[Path]) -> BlockedError:
    culprit = _culprit(file)
    mine, owner = _owner(culprit)
    place = _owning(culprit, ours)
    if mine and place:
        mend = f"`chmod -R u+rwX {shlex.quote(str(culprit))}` mends it"
    elif place:
        user = f"{os.geteuid()}:{os.getegid()}"
        mend = f"`sudo chown -R {user} {shlex.quote(str(place))}` mends it; use lab without sudo from then on"
    else:
        mend = "see who may use that file"
    whose = "it" if culprit == file else str(culprit)
    return BlockedError(
        f"{file} may not be read or written by {_name(os.geteuid())}: {whose} belongs to {owner}",
        hint=mend,
        evidence=[culprit],
    )


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _culprit(file: Path) -> Path:
    """Topmost folder this user may not enter; else the file, or its folder."""
    file = file.absolute()
    for folder in [*file.parents][::-1]:
        if not _may(folder, os.X_OK):
            return folder
    wanted = os.R_OK | os.W_OK | (os.X_OK if file.is_dir() else 0)
    if os.path.lexists(file) and not _may(file, wanted):
        return file
    return file.parent


def _owner(path: Path) -> tuple[bool, str]:
    """Whether it is this user's, and whose it is, with its mode."""
    try:
        facts = path.lstat()
    except OSError:
        return False, "somebody who does not show it"
    return facts.st_uid == os.geteuid(), f"{_name(facts.st_uid)} (mode {facts.st_mode & 0o7777:04o})"


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _owning(file: Path, ours: Sequence[Path]) -> Path | None:
    """The folder of lab's that holds `file`, or is it."""
    return next((folder for folder in ours if file.absolute().is_relative_to(folder.absolute())), None)


def _not_a_folder(file: Path) -> Path:
    """The first part of the path that is there and no folder."""
    for part in [*file.absolute().parents][::-1]:
        if os.path.lexists(part) and not os.path.isdir(part):  # noqa: PTH112 - unlike Path's, it never raises
            return part
    return file

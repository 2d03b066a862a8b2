"""Buildbot's own environment, made from fleet.lock. Nothing of it is in lab's, and lab imports none of it."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from pathlib import Path

from lab.core import files, lock, proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError
from lab.workflow.session import ROOT, Session

_SECONDS = 900.0


def programs(session: Session) -> Path:
    """The folder of Buildbot's programs, made when it is missing. Raises BlockedError.

    Its environment is in the cache, named by the lock and the interpreter it is made of, so that none is
    replaced under a program that runs from it.
    """
    pins = ROOT / "fleet.lock"
    named = pins.read_bytes() + f"{sys.executable} {platform.python_version()}".encode()
    final = session.settings.cache_dir / "fleet" / hashlib.sha256(named).hexdigest()[:16]
    if (final / ".complete").exists():
        return final / "bin"
    with (
        session.steps.step("fleet.environment", "Buildbot, from fleet.lock") as step,
        lock.when_free(lock.beside(final), "Buildbot's environment", say=step.note),
    ):
        if not (final / ".complete").exists():
            _make(final, pins)
    return final / "bin"


def _make(final: Path, pins: Path) -> None:
    """Fill the folder where it will stay, since an environment cannot be moved; `.complete` is last."""
    uv = Path(sys.executable).parent / "uv"
    deadline = Deadline.after(_SECONDS)
    shutil.rmtree(final, ignore_errors=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", final / "bin" / "python"]
    try:
        proc.run([uv, "venv", "--quiet", "--python", sys.executable, final], deadline=deadline)
        proc.run([*install, "--no-deps", "--require-hashes", "--requirement", pins], deadline=deadline)
    except CommandError as error:
        raise BlockedError(
            "Buildbot could not be installed",
            tail=error.tail,
            hint="is the package index reachable, and is the disk not full? then run this again",
        ) from error
    files.write_atomic(final / ".complete", "")

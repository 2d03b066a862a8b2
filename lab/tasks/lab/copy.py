"""lab.copy: a file into L1 or out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.core import caller
from lab.core.errors import UsageError
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_REMOTE = "lab:"


def copy(session: Session, name: str, source: str, target: str) -> Reply:
    """Copy one file; the side in the VM begins with `lab:`."""
    inward = target.startswith(_REMOTE)
    if inward == source.startswith(_REMOTE):
        raise UsageError(
            "one side, and only one, must be in the VM",
            hint="invoke lab.copy notes.txt lab:/tmp/notes.txt, or the other way round",
        )
    bench = Workbench.open(session, name)
    try:
        bench.require_running("copying")
        with session.steps.step("copy", f"{source} → {target}") as step:
            if inward:
                _copy_in(bench, caller.path(source), target.removeprefix(_REMOTE), step.progress)
            else:
                remote = source.removeprefix(_REMOTE)
                bench.guest.get(remote, _local_file(target, remote), step.progress)
    finally:
        bench.close()
    return Reply()


def _local_file(target: str, remote: str) -> Path:
    """Where a copy of `remote` goes that was asked for as `target`: a file, or the folder for it."""
    local = caller.path(target)
    file = local / Path(remote).name if local.is_dir() else local
    if file.is_dir() or not file.parent.is_dir() or (target.endswith("/") and not local.is_dir()):
        why = "a folder is there" if file.is_dir() else "there is no such folder"
        raise UsageError(f"{file} cannot be written: {why}")
    return file


def _copy_in(bench: Workbench, local: Path, remote: str, progress: Callable[[int, int], None]) -> None:
    if not local.is_file():
        raise UsageError(f"{local} is not a file", hint="folders: make an archive of it first")
    into_folder = (
        remote == ""
        or remote.endswith("/")
        or bench.guest.run(["test", "-d", remote], check=False).status == 0
    )
    bench.guest.put(local, str(Path(remote or ".") / local.name) if into_folder else remote, progress)

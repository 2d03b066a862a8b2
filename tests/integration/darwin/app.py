"""VirtualBox.app of the masked Mac: the real VirtualBox of a Linux, at a Mac's places."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from tests.integration.darwin.mac import APP, HOME, Masked

PYTHON = Path("/usr/local/bin/vbox-python3")
"""For `virtualbox.python`: a Python that can load the bindings."""
MANAGE = APP / "VBoxManage"

_GLUE = APP / "sdk/installer/python/vboxapi/src/vboxapi"
_PROGRAMS = Path("/usr/lib/virtualbox")
_NSENTER = Path(".mask/nsenter")
_SECONDS = 30.0


@dataclass(frozen=True)
class Linux:
    """Where VirtualBox is installed: a root folder, as the process `keeper` sees it."""

    keeper: int
    root: Path


def install(masked: Masked, linux: Linux, glue: bool) -> None:
    """Put it in place, with Python's glue in it or without, as 7.1 and 7.0 bring it to a Mac.

    HOME is the same folder for both then: VirtualBox writes the VM's files where lab looks for them.
    """
    _share(masked.home, linux)
    nsenter = shutil.which("nsenter")
    assert nsenter
    shutil.copy2(nsenter, masked.root / _NSENTER)
    app = masked.root / str(APP).lstrip("/")
    app.mkdir(parents=True)
    (app / "VBoxSVC").touch()
    _wrap(app / "VBoxManage", Path("/usr/bin/VBoxManage"), linux)
    _wrap(masked.root / str(PYTHON).lstrip("/"), Path("/usr/bin/python3"), linux)
    if glue:
        folder = masked.root / str(_GLUE).lstrip("/")
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()


def _wrap(wrapper: Path, program: Path, linux: Linux) -> None:
    """A program of that Linux. /proc is the mask's hidden one; the other is in there."""
    enter = [f"/{_NSENTER}", f"--mount=/.mask/proc/{linux.keeper}/ns/mnt", "--"]
    enter += [shutil.which("chroot") or "chroot", str(linux.root)]
    settings = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(HOME),
        "TMPDIR": "/tmp",  # noqa: S108 - in the root, which is the instance's own
        "VBOX_USER_HOME": str(HOME / "Library/VirtualBox"),
        "VBOX_PROGRAM_PATH": str(_PROGRAMS),
    }
    words = ["env", "-u", "VBOX_SDK_PATH", *(f"{name}={value}" for name, value in settings.items())]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([*enter, *words, str(program)])} "$@"\n')
    wrapper.chmod(0o755)


def _share(home: Path, linux: Linux) -> None:
    """Mount the Mac's HOME in that Linux, where it goes with its mounts."""
    place = linux.root / HOME.relative_to("/")
    inside = ["nsenter", f"--mount=/proc/{linux.keeper}/ns/mnt", "--"]
    for words in (["mkdir", "-p", place], ["mount", "--bind", home, place]):
        proc.run([*inside, *words], deadline=Deadline.after(_SECONDS))

"""Make the environment that bin/invoke runs in: `python3 bin/make_venv.py ROOT/.venvs/NAME`.

Afterwards `ROOT/.venv` is a link to it. Needs nothing but Python 3.11's standard library. Exit codes are
lab's: 11 when something is missing or cannot be fetched, 130 after Ctrl-C.

Each environment has a folder of its own, so that none is replaced under a command that runs in it; a command
holds the `.used` of its environment (lab/cli/program.py), and only what nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

UNUSED_SECONDS = 24 * 3600.0
"""How long an environment is kept that nobody runs in: a checkout may go to another branch and back."""
TELL_SECONDS = 30.0
"""How often it is said again who is waited for."""


class CannotMakeError(Exception):
    """Why there is no environment, and what helps."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def maker_lock(folder: Path) -> Iterator[int]:
    """Be the only maker in `folder`, having said who is waited for; gives the lock's file descriptor.

    The kernel drops the lock when its last holder is gone: this process, or a pip that outlived it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not take(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            say(f"lab: waiting for {holder}, which is making the environment")
            until = time.monotonic() + TELL_SECONDS
            while time.monotonic() < until and not take(descriptor):
                time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} of {user_name(os.getuid())}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Whether the lock is ours now. Taking it twice is harmless."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def need_venv_module(may_install: bool) -> None:
    """Install Debian's python3-venv where Python came without it; raises CannotMakeError."""
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    if subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode == 0:
        return
    if not may_install or os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotMakeError("Python's venv module is missing.", "sudo apt-get install python3-venv")
    say("lab: installing python3-venv")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "python3-venv"]):
        run(["apt-get", *words], "look at what apt-get says above", environment=environment)


def run(
    command: list[str], hint: str, *, lock: int | None = None, environment: dict[str, str] | None = None
) -> None:
    """Run a command, its output on standard error; raises CannotMakeError when it fails."""
    inherited = () if lock is None else (lock,)
    ended = subprocess.run(command, check=False, stdout=sys.stderr, pass_fds=inherited, env=environment)
    if ended.returncode:
        raise CannotMakeError(f"`{' '.join(command)}` ended with status {ended.returncode}", hint)


def make(venv: Path, root: Path, lock: int) -> None:
    """Fill the folder `venv`; `.complete` in it is written last. Half of one is begun anew."""
    say("lab: making .venv from requirements.lock (about half a minute)")
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)], "look at what Python says above", lock=lock)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    hint = "is the package index reachable, and is the disk not full? then run this again"
    run([*install, "--require-hashes", "-r", str(root / "requirements.lock")], hint, lock=lock)
    run([*install, "--no-index", "--no-build-isolation", "-e", str(root)], hint, lock=lock)
    (venv / ".used").touch()
    (venv / ".complete").touch()


def link(venv: Path, root: Path) -> None:
    """Make `.venv` a link to the environment, in one step; a folder of that name is an older lab's."""
    current, new = root / ".venv", root / ".venvs" / "link"
    if current.is_dir() and not current.is_symlink():
        shutil.rmtree(current)
    new.unlink(missing_ok=True)
    new.symlink_to(Path(".venvs") / venv.name)
    new.replace(current)


def prune(keep: Path) -> None:
    """Remove what is half made, and the other environments no command has run in for a day."""
    for venv in keep.parent.iterdir():
        if venv == keep or not venv.is_dir() or venv.is_symlink():
            continue
        if not (venv / ".complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            continue
        with (venv / ".used").open("a") as used:
            unused = time.time() - os.fstat(used.fileno()).st_mtime > UNUSED_SECONDS
            if unused and take(used.fileno()):
                (venv / ".complete").unlink()
                shutil.rmtree(venv, ignore_errors=True)


def main(venv: Path) -> int:
    root = Path(__file__).resolve().parent.parent
    try:
        venv.parent.mkdir(exist_ok=True)
        with maker_lock(venv.parent) as lock:
            if not (venv / ".complete").exists():
                need_venv_module(may_install=os.environ.get("LAB_INSTALL", "auto") != "never")
                make(venv, root, lock)
            link(venv, root)
            prune(venv)
    except CannotMakeError as error:
        say(f"{error}\nhint: {error.hint}")
        return 11
    except OSError as error:
        owner = user_name(root.stat().st_uid)
        say(f"the environment cannot be made: {error}")
        say(f"hint: {root} belongs to {owner}: may you write to it, and is there room?")
        return 11
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

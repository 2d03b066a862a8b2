"""A working instance of the root: private, with fresh state, gone without a trace at the end."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.config.loading import PROJECT
from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.host.packages import find_program
from tests.integration.vboxroot.root import Root

_KEEPER = Path(__file__).with_name("keeper.py")
_SECONDS = 60.0
_ENDING_SECONDS = 30.0


@dataclass(frozen=True)
class Instance:
    keeper: int
    """The process that holds the mounts, all of them in its own mount namespace."""
    base: Path
    home: Path
    """HOME and VBOX_USER_HOME of all that runs inside; it is at the same path there."""
    python: Path
    """An executable that is the root's Python, with the caller's environment."""

    @property
    def enter(self) -> list[str]:
        """What goes before a command to run it inside. No process is put in between: the PID stays."""
        inside = f"--mount=/proc/{self.keeper}/ns/mnt"
        return [_program("nsenter"), inside, "--", _program("chroot"), str(self.base / "root")]

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "VBOX_USER_HOME": str(self.home)}

    def run(
        self,
        *words: str | Path,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> proc.Completed:
        """Run a command inside, as root, to its end."""
        environment = {**self.environment, **(env or {})}
        return proc.run([*self.enter, *words], check=check, env=environment, deadline=Deadline.after(seconds))

    def path(self, inside: str | Path) -> Path:
        """Where the host finds a file of the root. What is bind-mounted has its own path anyway."""
        return Path(f"/proc/{self.keeper}/root") / f"{self.base}/root/{inside}".lstrip("/")

    def processes(self) -> dict[int, str]:
        """PID and name of every process whose root is inside."""
        root = self.path("/").stat()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    its = (entry / "root").stat()
                    if (its.st_dev, its.st_ino) == (root.st_dev, root.st_ino):
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found


@contextlib.contextmanager
def mounted(root: Root, home: Path, folders: Sequence[Path] = ()) -> Iterator[Instance]:
    """An instance for the block. At its end every process in it is ended and every mount is gone.

    The project, its site-packages, `home` and `folders` are in it at the same paths, writable.
    `home` is made, and holds the wrapper script too.
    """
    place = Path(tempfile.gettempdir()).resolve()
    binds = {PROJECT, Path(sysconfig.get_path("purelib")).resolve(), home, *folders}
    for bind in binds:
        if not bind.is_absolute() or place.is_relative_to(bind.resolve()):
            raise ValueError(f"{bind} cannot be in the root: it holds the root's own place")
    home.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="lab-vboxroot-", dir=place))
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", sys.executable, _KEEPER, root.tree, base, *binds],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "ready\n":
            raise LabError("the root could not be mounted", tail=keeper.communicate()[1])
        instance = Instance(keeper.pid, base, home, home / "python3")
        _write_wrappers(instance)
        yield instance
    finally:
        _end(keeper)


def _write_wrappers(instance: Instance) -> None:
    """Python and VBoxManage of the root, as programs that any other may run."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in instance.environment.items())
    programs = {instance.python: "/usr/bin/python3", instance.home / "VBoxManage": "/usr/bin/VBoxManage"}
    for wrapper, program in programs.items():
        command = shlex.join([*instance.enter, program])
        wrapper.write_text(f'#!/bin/sh\nexport {settings}\nexec {command} "$@"\n')
        wrapper.chmod(0o755)


def _end(keeper: subprocess.Popen[str]) -> None:
    """Let it clean up: it ends what runs in its namespace, and the namespace ends with it."""
    if keeper.returncode is None:
        _, said = keeper.communicate(timeout=_ENDING_SECONDS)
        if keeper.returncode:
            raise LabError("the root could not be dismantled", tail=said)


def _program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise LabError(f"`{name}` is not installed")
    return str(found)

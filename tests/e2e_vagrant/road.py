"""An ordinary user's Vagrant and libvirt, thrown away at the end.

libvirt has no session for root, so root becomes an ordinary user in a user namespace of its own: files stay
root's, and are that user's in there. The session's daemon is started by libvirt itself, when first asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INVOKE = str(ROOT / ".venv" / "bin" / "invoke")
NAME = "vagrant"
"""The machine's, and the lab's."""

_USER = 1000
_SECONDS = 1500.0
_ENDING_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """Exit status, the JSON document if there was one, all that was said, and the seconds it took."""

    status: int
    document: dict[str, Any]
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Road:
    folder: Path
    env: dict[str, str]

    def vagrant(self, *words: str, seconds: float = _SECONDS, **more: str) -> Answer:
        return self._run(["vagrant", *words], seconds, more)

    def lab(self, task: str, *words: str, seconds: float = _SECONDS) -> Answer:
        return self._run([INVOKE, task, *words], seconds, {})

    def virsh(self, *words: str) -> Answer:
        return self._run(["virsh", "-c", "qemu:///session", *words], 60, {})

    def _run(self, words: list[str], seconds: float, more: dict[str, str]) -> Answer:
        started = time.monotonic()
        process = subprocess.Popen(
            [*_as_user(), *words],
            cwd=ROOT,
            env=self.env | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Answer(process.returncode, _json(out), out, err, time.monotonic() - started)


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", f"--map-user={_USER}", f"--map-group={_USER}", "--"]


def _json(out: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        return {}
    return found


@contextlib.contextmanager
def opened() -> Iterator[Road]:
    """A home, a runtime folder and a state folder in a short path: unix sockets lie in them."""
    folder = Path(tempfile.mkdtemp(prefix="lab-v-"))
    for name in ("home", "run"):
        (folder / name).mkdir(mode=0o700)
    dropped = ("LAB_", "VAGRANT", "XDG_", "LIBVIRT")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(dropped)},
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "VAGRANT_HOME": str(folder / "boxes"),
        "VAGRANT_DOTFILE_PATH": str(folder / "dot"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
        "LAB_STATE_DIR": str(folder / "state"),
        "LAB_CACHE_DIR": os.environ.get("LAB_CACHE_DIR") or _cache(),
        "LAB_IMAGE": "debian-13",
        "LAB_EMULATOR__KIND": "canary",
        "LAB_INSTALL": "never",
    }
    road = Road(folder, env)
    try:
        yield road
    finally:
        road.vagrant("destroy", "--force", seconds=300)
        road.lab("lab.destroy", "--purge", "--name", NAME, seconds=300)
        for daemon in ("libvirtd", "virtlogd"):
            _end(folder / "run" / "libvirt" / f"{daemon}.pid")
        shutil.rmtree(folder, ignore_errors=True)


def _cache() -> str:
    """The user's own, whose images are built already; HOME is another one in here."""
    from lab.config import load

    return str(load().cache_dir)


def _end(record: Path) -> None:
    """End a daemon of the session's, which would end by itself in two minutes."""
    try:
        pid = int(record.read_text())
    except (OSError, ValueError):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _ENDING_SECONDS
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.2)

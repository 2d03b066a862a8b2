"""Holds one instance's mount namespace: mounts, says `ready`, waits for its input to end, ends all in it.

    unshare --mount --propagation=private python3 keeper.py TREE BASE FOLDER…

BASE is an empty folder. In this namespace alone it holds a tmpfs with BASE/root, an overlay of TREE
in which each FOLDER is at its own path. The end of input is also what it sees when whoever started
it is killed, so nothing outlives the tests. Only the standard library is used: a host without lab's
environment does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SECONDS = 20.0


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


def assemble(tree: Path, base: Path, folders: list[Path]) -> None:
    # What is written goes to memory: there is nothing to remove afterwards but an empty folder.
    mount("-t", "tmpfs", "-o", "mode=755", "lab", base)
    root = base / "root"
    for name in ("upper", "work", "root"):
        (base / name).mkdir()
    options = f"lowerdir={tree},upperdir={base}/upper,workdir={base}/work"
    mount("-t", "overlay", "-o", options, "lab", root)
    # Shortest first: a folder that holds another must not hide it.
    for folder in [Path("/proc"), Path("/sys"), Path("/dev"), *sorted(folders)]:
        place = root / folder.relative_to("/")
        if place.resolve() != place:
            raise SystemExit(f"{folder} is behind a symbolic link in the root")
        place.mkdir(parents=True, exist_ok=True)
        mount("--rbind", folder, place)


def members() -> list[int]:
    """The processes in this namespace but this one, whatever their names."""
    own = os.stat("/proc/self/ns/mnt")  # noqa: PTH116 - follows the link to the namespace itself
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if os.path.samestat((entry / "ns/mnt").stat(), own):
                    found.append(int(entry.name))
    return found


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if pid in members():  # still the process that was found
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def dismantle(base: Path) -> None:
    """End the members and unmount. rmdir is all that removes: it cannot take a file with it."""
    until = time.monotonic() + _SECONDS
    while True:
        found = members()
        for pid in found:
            end(pid)
        if not found:
            if not base.is_mount():
                base.rmdir()
                return
            subprocess.run(["umount", "--recursive", base], check=False)
        if time.monotonic() > until:
            raise SystemExit(f"{base} is still in use, by {found or 'nobody known'}")
        time.sleep(0.05)


def main(tree: str, base: str, *folders: str) -> None:
    try:
        assemble(Path(tree), Path(base), [Path(folder) for folder in folders])
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        dismantle(Path(base))


if __name__ == "__main__":
    main(*sys.argv[1:])

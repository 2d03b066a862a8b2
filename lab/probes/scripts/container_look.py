"""One look at one container from the machine its Docker runs on, as one line of JSON.

Run as root, with the wishes below as JSON in the first argument. Reads /proc rather than asking
Docker wherever it can, since each word to Docker costs an emulated processor most of a second.
Needs nothing but Python 3.6.

    name      the container
    files     paths or patterns in it whose last `bytes` bytes are wanted
    command   what to run in it (`docker exec`), or nothing, for at most `seconds`
    beside    words in a program's path: `command` is run only while one of the container's has one of them
    stages    stages of its start the caller saw, in seconds from its start, by the boot of its guest that
              reached them ("": the container's own): the earliest word counts, and all that were ever told
              come back, also to another caller
"""

import contextlib
import glob
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROC = Path("/proc")
MEMORY = Path("/run/lab-containers")
"""Not on a disk: what is remembered of a container ends with the machine's boot."""
KVM_FILES = ("/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu")
LINES = 60
CLOCK_BOOTTIME = 7
"""Linux's number of it: Python has the name from 3.7 on."""
LIMIT = 2 << 20
"""Bytes that are told of what one command says."""
ALL_FILES = 8 << 20
"""Bytes that are told of all files together: a container may have any number of them."""
LEFT_OUT = "[lab: left out, there is too much]\n"
BOOTS = 5
"""Of the guest, whose stages are remembered: one that restarts for ever fills nothing."""


def run(argv: "list[str]", seconds: float, *, together: bool = False) -> "tuple[int, str, str]":
    """Exit status, the end of the output and of the errors; -1 when it took too long or could not be started.

    `together` has the errors among the output, in the order they were written: for logs.
    """
    errors = subprocess.STDOUT if together else subprocess.PIPE
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=errors, timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return -1, "", str(error)
    return done.returncode, ended(done.stdout), ended(done.stderr or b"")


def ended(stream: bytes) -> str:
    """The end of it, and how much that leaves out."""
    left_out = len(stream) - LIMIT
    mark = f"[lab: {left_out} bytes were left out here]\n" if left_out > 0 else ""
    return mark + stream[-LIMIT:].decode("utf-8", "replace")


def inspected(name: str, seconds: float) -> "tuple[dict[str, Any] | None, str]":
    """Docker's description of the container, and what Docker said when it gave none."""
    status, out, err = run(["docker", "container", "inspect", name], seconds)
    try:
        document = json.JSONDecoder().raw_decode(out.strip())[0]
    except ValueError:
        document = []
    if document:
        return document[0], ""
    return None, "" if "no such container" in err.lower() else (out + err)[-2000:] or f"status {status}"


def processes(first: int) -> "list[dict[str, Any]]":
    """The container's first process and all below it. Times are seconds of this machine's wall clock."""
    booted = time.time() - time.clock_gettime(CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    parents, starts = {}, {}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        starts[int(folder.name)] = booted + int(fields[19]) / ticks
    mine, todo = [], [first] if first in parents else []
    while todo:
        pid = todo.pop()
        mine.append(pid)
        todo += [child for child, parent in parents.items() if parent == pid]
    return [
        {"pid": pid, "started": starts[pid], "command": command(pid), "kvm": kvm_files(pid)}
        for pid in sorted(mine)
    ]


def command(pid: int) -> "list[str]":
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []
    return [word.decode("utf-8", "replace")[:300] for word in words[:200]]


def kvm_files(pid: int) -> "list[str]":
    """Which of KVM's files the process has open: the device, a VM it made, that VM's processors."""
    names = set()
    try:
        for link in (PROC / str(pid) / "fd").iterdir():
            target = os.readlink(str(link))  # noqa: PTH115 - Path.readlink is of Python 3.9
            names |= {known for known in KVM_FILES if target == known or target.startswith(f"{known}:")}
    except OSError:
        pass
    return sorted(names)


def tails(pid: int, patterns: "list[str]", limit: int) -> "dict[str, str]":
    """The ends of files in the container, by path, read with the container's root as the root.

    Nothing in it can lead out: its links are followed inside.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.chroot(str(PROC / str(pid) / "root"))
            os.chdir("/")
            paths = [path for pattern in patterns for path in sorted(glob.glob(pattern))]  # noqa: PTH207
            texts, left = {}, ALL_FILES
            for path in paths:
                text = tail(path, min(limit, left)) if left else LEFT_OUT
                if text is not None:
                    texts[path] = text
                    left = max(0, left - len(text))
            with os.fdopen(writing, "w") as stream:
                json.dump(texts, stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        content = stream.read()
    os.waitpid(child, 0)
    return json.loads(content) if content else {}


def tail(path: str, limit: int) -> "str | None":
    """The end of a regular file; None for anything else."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return None
            stream.seek(max(0, facts.st_size - limit))
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def killed_for_memory(pid: int) -> int:
    """How many of the container's processes the kernel ended for want of memory (cgroup v2)."""
    try:
        group = (PROC / str(pid) / "cgroup").read_text().strip().rpartition(":")[2]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")), 0)


def kernel_lines(words: "tuple[str, ...]") -> "list[str]":
    lines = run(["dmesg"], 20)[1].splitlines()
    return [line for line in lines if any(word in line.lower() for word in words)][-LINES:]


def remembered(identity: str, stages: "dict[str, dict[str, float]]") -> "dict[str, dict[str, float]]":
    """All stages ever told of this very start of the container, by boot, each at its earliest."""
    place = MEMORY / f"{identity}-boots.json"
    known: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError, ValueError):
        known.update(json.loads(place.read_text()))
    merged = {boot: dict(reached) for boot, reached in known.items()}
    for boot, reached in stages.items():
        there = merged.setdefault(boot, {})
        there.update({name: min(seconds, there.get(name, seconds)) for name, seconds in reached.items()})
    for boot in [boot for boot in merged if boot][:-BOOTS]:
        del merged[boot]
    if merged != known:
        MEMORY.mkdir(mode=0o700, exist_ok=True)
        part = place.with_suffix(".part")
        part.write_text(json.dumps(merged))
        part.replace(place)
    return merged


def main() -> None:
    wish = json.loads(sys.argv[1])
    seconds = wish.get("seconds", 30)
    container, error = inspected(wish["name"], seconds)
    state = (container or {}).get("State", {})
    pid, running = state.get("Pid", 0), bool(state.get("Running"))
    look: dict[str, Any] = {
        "schema": "lab.container_look/1",
        "at": time.time(),
        "container": container,
        "error": error,
        "processes": processes(pid) if running else [],
        "files": tails(pid, wish.get("files", []), wish.get("bytes", 8192)) if running else {},
        "memory_kills": killed_for_memory(pid) if running else 0,
        "kernel": [],
        "log": "",
        "status": None,
        "said": "",
        "stages": {},
    }
    if container:
        start = f"{container.get('Id', '')[:24]}-{state.get('StartedAt', '')[:19].replace(':', '')}"
        look["stages"] = remembered(start, wish.get("stages", {}))
        if not look["files"]:  # it has ended, or nothing in it ever began
            look["log"] = run(["docker", "logs", "--tail", str(LINES), wish["name"]], seconds, together=True)[
                1
            ]
        if look["memory_kills"] or state.get("OOMKilled") or state.get("ExitCode") == 137:
            look["kernel"] = kernel_lines(("out of memory", "oom-kill", "oom_reaper"))
    programs = [process["command"][0] for process in look["processes"] if process["command"]]
    beside = wish.get("beside") or [""]
    if wish.get("command") and any(word in path for path in programs for word in beside):
        status, out, err = run(["docker", "exec", wish["name"], *wish["command"]], seconds)
        look["status"], look["said"] = status, out if status == 0 else out + err
    print(json.dumps(look))


if __name__ == "__main__":
    main()

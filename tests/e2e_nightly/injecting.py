"""Faults as the world makes them: in the VM, under it, on the host's disk and in its clock."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from lab.adb import AdbServer
from lab.core.deadline import Deadline
from lab.core.journal import Journal
from tests.e2e.conftest import Answer, Lab

HERE = Path(__file__).parent
_ADB_SECONDS = 60.0
_SHRINKS = 200


def inside(lab: Lab, name: str, script: str) -> str:
    """What a shell script says that runs as root in the lab's VM; it must succeed."""
    document = lab.json("lab.exec", "--name", name, "--", "sudo", "sh", "-ec", script)
    return str(document["out"]).strip()


def record(lab: Lab, name: str) -> dict[str, Any]:
    """The lab's own record."""
    found: dict[str, Any] = json.loads((lab.state / "labs" / name / "lab.json").read_text())
    return found


def nonce(lab: Lab, name: str) -> str:
    """What the lab's main emulator was given at launch."""
    return str(record(lab, name)["instances"]["main"]["nonce"])


def kill_vm(lab: Lab, name: str) -> None:
    """End the VM's process as a host without memory would; it is the one lab's own record names."""
    launched = json.loads((lab.state / "labs" / name / "vm" / "process.json").read_text())
    process = psutil.Process(launched["pid"])
    assert launched["uuid"] in process.cmdline(), process
    process.send_signal(signal.SIGKILL)


def over_adb(lab: Lab, name: str, folder: Path, *argv: str) -> str:
    """What a command says on whatever answers the lab's ADB on the host. The server is the test's own."""
    server = AdbServer(folder, Journal(folder.with_suffix(".journal")))
    address = f"127.0.0.1:{record(lab, name)['forwards']['adb']['host_port']}"
    try:
        return server.shell(address, *argv, deadline=Deadline.after(_ADB_SECONDS))
    finally:
        server.stop()


@dataclass(frozen=True)
class Running:
    """A task at work. `before` are the folders of evidence that were there when it began."""

    process: subprocess.Popen[str]
    evidence: Path
    before: set[Path]

    def steps(self, name: str, verb: str, kind: str = "started") -> list[str]:
        """The steps of its run of that kind on a lab that have started by now, or are `finished`."""
        runs = set(self.evidence.glob(f"{name}/*-{verb}/steps.jsonl")) - self.before
        lines = [line for path in runs for line in path.read_text().splitlines() if line.endswith("}")]
        events = [json.loads(line) for line in lines]
        return [event["name"] for event in events if event["kind"] == kind]

    def wait_for(self, step: str, name: str, verb: str, kind: str = "started", seconds: float = 600) -> None:
        """Until that step has started, or is `finished`. The task must still run then."""
        until = time.monotonic() + seconds
        while step not in self.steps(name, verb, kind):
            assert self.process.poll() is None, f"it ended too early: {self.process.communicate()}"
            assert time.monotonic() < until, f"{step} was not reached in time"
            time.sleep(0.1)

    def answer(self, seconds: float) -> Answer:
        """What it leaves in the end."""
        out, err = self.process.communicate(timeout=seconds)
        return Answer(self.process.returncode, json.loads(out or "{}"), out, err)


@contextlib.contextmanager
def running(lab: Lab, task: str, *words: str) -> Iterator[Running]:
    """The task with --json, while it runs; it is ended with the block."""
    evidence = lab.state / "evidence"
    before = set(evidence.glob("*/*/steps.jsonl"))
    process = lab.start(task, "--json", *words)
    try:
        yield Running(process, evidence, before)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def elsewhere(lab: Lab, folder: Path, **env: str) -> Iterator[Lab]:
    """A user whose state is kept in `folder`, with these settings; its labs are removed in the end."""
    made = replace(lab, state=folder, env=lab.env | env | {"LAB_STATE_DIR": str(folder)})
    try:
        yield made
    finally:
        for row in json.loads(made.run("lab.list", "--json").out or '{"labs": []}').get("labs", []):
            made.run("lab.destroy", "--purge", "--name", row["name"])


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in `folder`, with room for `size` (as tmpfs has it)."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "lab-fault", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no room on the file system that `disk` made: it is made as small as what is on it."""
    for _ in range(_SHRINKS):
        found = os.statvfs(folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize >> 10
        done = subprocess.run(["mount", "-o", f"remount,size={used}k", folder], capture_output=True)
        if done.returncode == 0:  # else it grew meanwhile
            return
    raise AssertionError(f"{folder} grows too fast to be filled: {done.stderr!r}")


@dataclass(frozen=True)
class Clock:
    """The wall clock of the programs started with `env`; this machine's own is left alone."""

    env: dict[str, str]
    file: Path

    def jump(self, seconds: int) -> None:
        with self.file.open("r+b") as stream:
            stream.write(seconds.to_bytes(8, "little", signed=True))


def clock(folder: Path) -> Clock:
    """A wall clock that can be set for some programs alone: between them and libc stands clock.c."""
    library, file = folder / "clock.so", folder / "clock"
    file.write_bytes(bytes(8))
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "clock.c", "-ldl"], check=True)
    return Clock({"LD_PRELOAD": str(library), "FAULT_CLOCK": str(file)}, file)

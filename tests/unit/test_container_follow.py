"""The script that follows a container's logs in L1, with a docker of the test's own and real files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

import pytest

from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError
from lab.emulators.container import Container
from lab.guest.ssh import Guest, Result
from lab.guest.terms import OWN
from lab.probes.kvm import script
from tests.capabilities import needs_linux

pytestmark = needs_linux  # as the VM in which the script runs
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")
SECONDS = 20.0


@contextmanager
def followed(tmp_path: Path, files: list[Path], shown: int = 64) -> Iterator[tuple[IO[str], Path]]:
    """What the script says, and what stands for Docker's log; this process is the container's first."""
    log, docker = tmp_path / "docker.log", tmp_path / "docker"
    log.write_text("old\n" * 9 + "begun\n")
    docker.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"container) echo {os.getpid()} ;;\n"
        f'logs) echo "$*" >{tmp_path}/asked; tail -n 1 -F {log} 2>/dev/null & wait ;;\nesac\n'
    )
    docker.chmod(0o755)
    wish = {"name": "lab-x", "files": [str(path) for path in files], "lines": 1, "bytes": shown}
    following = subprocess.Popen(
        [sys.executable, "-", json.dumps(wish)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    assert following.stdin and following.stdout
    following.stdin.write(script("container_follow.py"))
    following.stdin.close()
    try:
        yield following.stdout, log
    finally:
        os.killpg(following.pid, 15)
        following.wait()


def add(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


@as_root
def test_each_log_is_told_from_where_it_was_told_last(tmp_path: Path) -> None:
    device = tmp_path / "device.stdout.log"
    device.write_text("x" * 100 + "\nlast line\n")
    with followed(tmp_path, [device, tmp_path / "not-there.log"]) as (said, log):
        first = {said.readline(), said.readline()}
        assert first == {"container.log\tbegun\n", "device.stdout.log\tlast line\n"}
        add(device, "half ")
        add(log, "more\n")
        assert said.readline() == "container.log\tmore\n"
        add(device, "and half\n\tindented\n")
        assert said.readline() == "device.stdout.log\thalf and half\n"
        assert said.readline() == "device.stdout.log\t\tindented\n"
        device.write_text("anew\n")  # shorter: it began anew
        assert said.readline() == "device.stdout.log\tanew\n"
        device.rename(tmp_path / "device.stdout.log.1")
        device.write_text("another file, longer than the one before\n")
        assert said.readline() == "device.stdout.log\tanother file, longer than the one before\n"
    assert (tmp_path / "asked").read_text() == "logs --follow --tail 1 lab-x\n"


@as_root
def test_end_of_the_container_is_the_end_of_it_all(tmp_path: Path) -> None:
    device = tmp_path / "device.stdout.log"
    device.write_text("")
    with followed(tmp_path, [device]) as (said, _):
        assert said.readline() == "container.log\tbegun\n"
        (tail,) = _children_of("tail", "-n 1 -F", str(tmp_path))
        add(device, "its last words\n")
        os.kill(tail, 15)
        assert said.read() == "device.stdout.log\tits last words\n"

        def gone() -> bool | None:
            return True if not _children_of("python", str(tmp_path / "device")) else None

        poll(gone, Deadline.after(SECONDS), "the end of what reads the files")


def _children_of(*words: str) -> list[int]:
    """Processes with all these words on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(int(folder.name))
    return found


class FakeGuest:
    """Answers an inspection, and says what the script would."""

    terms = OWN

    def __init__(self, inspected: str, *lines: str) -> None:
        self.inspected, self.lines = inspected, lines
        self.wishes: list[dict[str, Any]] = []

    def run(self, argv: list[str], **more: Any) -> Result:
        if argv[0] == "docker":
            out, _, err = self.inspected.partition("\n")
            return Result(argv, out, err, 1 if err else 0, 0.0)
        assert more["sudo"] and more["stdin"] == script("container_follow.py")
        self.wishes.append(json.loads(argv[2]))
        for line in self.lines:
            more["on_line"](line)
        return Result(argv, "", "", 0, 0.0)


def test_container_tells_names_and_lines() -> None:
    told: list[tuple[str, str]] = []
    guest = FakeGuest(
        '[{"State": {}, "Config": {}}]', "container.log\tone\ttwo", "Traceback of the script's own", "a.log\t"
    )
    Container("lab-x", "u-1").watch(cast(Guest, guest), ["/logs/a.log"], lambda *line: told.append(line))
    assert told == [("container.log", "one\ttwo"), ("a.log", "")]
    assert guest.wishes[0]["files"] == ["/logs/a.log"] and guest.wishes[0]["name"] == "lab-x"
    nobody = FakeGuest("[]\nError: No such container: lab-x")
    with pytest.raises(BlockedError, match="no container lab-x"):
        Container("lab-x", "u-1").watch(cast(Guest, nobody), [], lambda *_: None)


def test_a_line_without_an_end_is_told_in_pieces(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    path = resources.files("lab.probes") / "scripts" / "container_follow.py"
    spec = importlib.util.spec_from_file_location("container_follow", str(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reading, writing = os.pipe()

    def talk() -> None:
        with os.fdopen(writing, "wb") as stream:
            stream.write(b"x" * 1_000_000)

    threading.Thread(target=talk, daemon=True).start()
    module.forward({reading: b"a.log\t"}, reading)
    lines = capfdbinary.readouterr().out.splitlines()
    assert all(line.startswith(b"a.log\tx") for line in lines) and max(map(len, lines)) < 3 * module.CHUNK
    assert sum(len(line) - 6 for line in lines) == 1_000_000

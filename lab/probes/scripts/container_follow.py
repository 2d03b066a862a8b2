"""The logs of one container as they grow, a line each: the log's name, a tab, the line as it was written.

Run on the machine its Docker runs on, as root, with the wishes below as JSON in the first argument. Ends
when the container has. Needs nothing but Python 3.6.

    name      the container
    files     files in it to follow beside Docker's own log of it
    lines     how many lines of Docker's log, and
    bytes     how many bytes of each file, are shown to begin with
"""

import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROC = Path("/proc")
EVERY_SECONDS = 0.5
CHUNK = 1 << 16
DOCKERS = "container.log"


class File:
    """One file of the container, and how far it was read."""

    def __init__(self, path: str, shown: int) -> None:
        self.name = os.path.basename(path)  # noqa: PTH119 - a path in there
        self._path, self._shown = path, shown
        self._file: tuple[int, int] | None = None
        self._at = 0
        self._inside_a_line = False

    def lines(self) -> "list[bytes]":
        """The whole lines that were written since; all of them when the file began anew."""
        try:
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
                facts = os.fstat(stream.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    return []
                self._find_place(facts)
                stream.seek(self._at)
                text = stream.read(CHUNK)
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1] or (text if len(text) == CHUNK else b"")
        self._at += len(whole)
        if self._inside_a_line:
            self._inside_a_line = not whole
            whole = whole.partition(b"\n")[2]
        return whole.splitlines()

    def _find_place(self, facts: os.stat_result) -> None:
        file = (facts.st_dev, facts.st_ino)
        if self._file is None:
            self._at = max(0, facts.st_size - self._shown)
            self._inside_a_line = self._at > 0
        elif file != self._file or facts.st_size < self._at:
            self._at = 0
        self._file = file


def follow_files(pid: int, paths: "list[str]", shown: int) -> int:
    """A child that writes what files in the container gain; where it can be read.

    Its root is the container's, so nothing in there can lead out.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    if os.fork() != 0:
        os.close(writing)
        return reading
    try:
        os.close(reading)
        os.chroot(str(PROC / str(pid) / "root"))
        os.chdir("/")
        files = [File(path, shown) for path in paths]
        with os.fdopen(writing, "wb") as stream:
            while os.getppid() == parent:
                lines = [(file.name, line) for file in files for line in file.lines()]
                for name, line in lines:
                    stream.write(name.encode() + b"\t" + line + b"\n")
                stream.flush()
                if not lines:
                    time.sleep(EVERY_SECONDS)
    finally:
        os._exit(0)


def forward(sources: "dict[int, bytes]", until: int) -> None:
    """Write whole lines as they come, each with what its source puts before it.

    Ends when `until` has, and no other had anything to say for a moment.
    """
    left = dict.fromkeys(sources, b"")
    with selectors.DefaultSelector() as ready:
        for source in sources:
            ready.register(source, selectors.EVENT_READ)
        while True:
            events = ready.select(None if until in left else 2 * EVERY_SECONDS)
            if not events:
                break
            for key, _ in events:
                source = key.fd
                text = os.read(source, CHUNK)
                if not text:
                    ready.unregister(source)
                    rest = left.pop(source)
                    text = rest and rest + b"\n"
                else:
                    text = left[source] + text
                    if len(text) - text.rfind(b"\n") > CHUNK:  # a line may have no end
                        text += b"\n"
                    left[source] = text[text.rfind(b"\n") + 1 :]
                for line in text[: text.rfind(b"\n") + 1].splitlines():
                    sys.stdout.buffer.write(sources[source] + line + b"\n")
            sys.stdout.buffer.flush()


def main() -> None:
    wish: dict[str, Any] = json.loads(sys.argv[1])
    asked = ["docker", "container", "inspect", "--format", "{{.State.Pid}}", wish["name"]]
    pid = int(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout)
    words = ["docker", "logs", "--follow", "--tail", str(wish["lines"]), wish["name"]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as docker:
        assert docker.stdout is not None  # noqa: S101 - it was given a pipe
        log = docker.stdout.fileno()
        sources = {log: DOCKERS.encode() + b"\t"}
        if pid and wish["files"]:
            sources[follow_files(pid, wish["files"], wish["bytes"])] = b""
        forward(sources, log)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody listens any more
    main()

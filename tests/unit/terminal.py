"""A real terminal (a pty) for a program, and what a person sees on it in the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, ROWS = 100, 40
_CONTROL = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])")

BEFORE = """\
import os, sys, time
from lab.cli import streams
streams.prepare()
from lab.core import proc, screen
from lab.cli.perform import perform
from lab.workflow.session import Reply
"""
"""What a script for `script` begins with: as lab.cli.program.main does."""


@dataclass
class Seen:
    """What came out of the terminal, byte by byte, and the program's exit code (negative: a signal)."""

    raw: bytes
    code: int

    @property
    def lines(self) -> list[str]:
        """The screen in the end, without trailing blanks; what scrolled away is at its top."""
        return _screen(self.raw)

    @property
    def cursor_hidden(self) -> bool:
        return self.raw.rfind(b"\x1b[?25l") > self.raw.rfind(b"\x1b[?25h")


def script(command: str, *, json: bool = False) -> list[str]:
    """The words to run lab's perform in a Python of its own; `command` is the body of the command."""
    body = "\n".join(f"    {line}" for line in command.splitlines())
    text = f"{BEFORE}\ndef command(session):\n{body}\nperform(command, as_json={json})\n"
    return [sys.executable, "-c", text]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "FORCE_COLOR"))}
    own = {"LAB_STATE_DIR": str(folder / "state"), "LAB_CACHE_DIR": str(folder / "cache"), "TERM": "xterm"}
    return kept | own | {"PYTHONPATH": str(ROOT)} | more


def on_terminal(
    words: Sequence[str],
    env: Mapping[str, str],
    *answers: tuple[bytes, bytes],
    stdout: int | None = None,
    seconds: float = 60.0,
) -> Seen:
    """Run a program with the terminal as its standard streams, but for `stdout` where one is given.

    Each of `answers` is a cue and what is typed once that has come out.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def take() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        words, stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave, env=env,
        cwd=ROOT, preexec_fn=take,
    )  # fmt: skip
    os.close(slave)
    os.set_blocking(master, False)
    raw, left, searched, until = b"", list(answers), 0, time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            ended = process.poll() is not None
            try:
                chunk = os.read(master, 65536)
            except BlockingIOError:
                chunk = b""
            except OSError:  # Linux: nobody has the other side open any more
                break
            raw += chunk
            while left and (at := raw.find(left[0][0], searched)) >= 0:
                cue, answer = left.pop(0)
                searched = at + len(cue)
                os.write(master, answer)
            if ended and not chunk:
                break
            time.sleep(0.01)
        else:
            raise AssertionError(f"it did not end: {raw!r}")
        return Seen(raw, process.wait(timeout=10))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(master)


def _screen(raw: bytes) -> list[str]:
    """What a terminal shows after `raw`: line feeds, carriage returns, and Rich's cursor movements."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for part in re.split(rb"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)", raw):
        if part == b"\r":
            column = 0
        elif part == b"\n":
            row += 1
        elif match := _CONTROL.fullmatch(part):
            count = int(match[1] or b"1") if match[1].isdigit() or not match[1] else 1
            if match[2] == b"A":
                row = max(0, row - count)
            elif match[2] == b"K":
                rows[row] = [] if match[1] == b"2" else rows[row][:column]
        else:
            for sign in part.decode(errors="replace"):
                line = rows[row]
                line += " " * (column + 1 - len(line))
                line[column] = sign
                column += 1
        rows += [[] for _ in range(row + 1 - len(rows))]
    return ["".join(line).rstrip() for line in rows]

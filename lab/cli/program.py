"""Invoke's own program, with usage errors answering 2 as docs/tasks.md promises."""

from __future__ import annotations

import sys

from invoke import Program
from invoke.exceptions import ParseError

from lab import __version__
from lab.errors import ExitCode


def main() -> None:
    """Entry point of `invoke` in lab's environment."""
    program = Program(version=__version__, binary="invoke")
    try:
        program.run(exit=False)
    except ParseError:
        sys.exit(ExitCode.USAGE)

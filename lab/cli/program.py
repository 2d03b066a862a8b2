"""Invoke's own program, with usage errors answering 2 as docs/tasks.md promises."""

from __future__ import annotations

import sys
from collections.abc import Callable

from invoke.exceptions import ParseError
from invoke.program import Program

from lab import __version__
from lab.errors import ExitCode


class LabProgram(Program):
    """Invoke ends with 1 on a usage error, which lab keeps for its own faults."""

    def parse_core(self, argv: list[str] | None) -> None:
        _usage(lambda: super(LabProgram, self).parse_core(argv))

    def parse_collection(self) -> None:
        _usage(super().parse_collection)

    def parse_tasks(self) -> None:
        _usage(super().parse_tasks)


def _usage(parse: Callable[[], None]) -> None:
    try:
        parse()
    except ParseError as error:
        sys.stderr.write(f"{error}\nhint: `invoke --list` shows the tasks, `invoke --help TASK` the flags\n")
        sys.exit(ExitCode.USAGE)


def main() -> None:
    """Entry point of `invoke` in lab's environment."""
    LabProgram(version=__version__, binary="invoke").run()

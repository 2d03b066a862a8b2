"""Invoke's own program, with usage errors answering 2 as docs/tasks.md promises."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence

from invoke.exceptions import ParseError
from invoke.parser.context import ParserContext, to_flag
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
        self.core.unparsed = with_flags(self.core.unparsed, self.collection.to_contexts())
        _usage(super().parse_tasks)


def with_flags(words: Sequence[str], contexts: Sequence[ParserContext]) -> list[str]:
    """`words` with the flag before an argument that follows its task and may be left out.

    Invoke itself takes a positional argument that has a default from its flag only.
    """
    optional: dict[str, str] = {}
    names: set[str] = set()
    for context in contexts:
        names |= {str(context.name), *context.aliases}
        flags = [to_flag(str(arg.name)) for arg in context.positional_args if arg.default is not None]
        optional |= dict.fromkeys((str(context.name), *context.aliases), flags[0]) if flags else {}
    found = []
    for word, following in itertools.pairwise([*words, ""]):
        found.append(word)
        if word in optional and following and not following.startswith("-") and following not in names:
            found.append(optional[word])
    return found


def _usage(parse: Callable[[], None]) -> None:
    try:
        parse()
    except ParseError as error:
        sys.stderr.write(f"{error}\nhint: `invoke --list` shows the tasks, `invoke --help TASK` the flags\n")
        sys.exit(ExitCode.USAGE)


def main() -> None:
    """Entry point of `invoke` in lab's environment."""
    LabProgram(version=__version__, binary="invoke").run()

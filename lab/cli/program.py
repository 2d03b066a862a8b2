"""Invoke's own program, with usage errors answering 2 as docs/tasks.md promises."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.parser.context import ParserContext, to_flag
from invoke.program import Program

from lab import __version__
from lab.cli import refusal, streams
from lab.core import web
from lab.core.characters import printable
from lab.core.errors import ExitCode, UsageError

_NO_NUMBER = re.compile(r"^invalid literal for int\(\) with base 10: '(?P<value>.*)'$", re.DOTALL)
"""How int() refuses what a flag was given: Invoke lets it through."""


class LabProgram(Program):
    """Invoke ends with 1 on a usage error, which lab keeps for its own faults."""

    def parse_core(self, argv: list[str] | None) -> None:
        self._usage(lambda: super(LabProgram, self).parse_core(argv))

    def parse_collection(self) -> None:
        self._usage(super().parse_collection)

    def parse_tasks(self) -> None:
        self._usage(super().parse_tasks)

    def _make_parser(self) -> Parser:
        """Invoke's, with what it is about to parse made ready.

        The contexts are taken from it: a task gives its help texts away once, to whoever asks first.
        """
        parser = super()._make_parser()
        self.core.unparsed = with_flags(self.core.unparsed, list(parser.contexts.values()))
        return parser

    def _usage(self, parse: Callable[[], None]) -> None:
        try:
            parse()
        except ParseError as error:
            self._refuse(str(error))
        except ValueError as error:
            if not (match := _NO_NUMBER.search(str(error))):
                raise
            self._refuse(no_number(self.argv, match["value"]))

    def _refuse(self, what: str) -> NoReturn:
        """End with lab's exit code for it, and with lab's error document where JSON was asked for."""
        hint = "`invoke --list` shows the tasks, `invoke --help TASK` the flags"
        sys.stderr.write(f"{printable(what)}\nhint: {hint}\n")
        if "--json" in itertools.takewhile(lambda word: word != "--", self.argv):
            document = refusal.document(UsageError(what, hint=hint))
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        sys.exit(ExitCode.USAGE)


def with_flags(words: Sequence[str], contexts: Sequence[ParserContext]) -> list[str]:
    """`words` with the flag before each argument that follows its task and may be left out.

    Invoke itself takes a positional argument that has a default from its flag only.
    """
    optional: dict[str, list[str]] = {}
    names: set[str] = set()
    for context in contexts:
        names |= {str(context.name), *context.aliases}
        flags = [to_flag(str(arg.name)) for arg in context.positional_args if arg.default is not None]
        optional |= dict.fromkeys((str(context.name), *context.aliases), flags)
    complete: list[str] = []
    waiting: list[str] = []
    """The flags of the arguments that may come next."""
    for word in words:
        if waiting and not word.startswith("-") and word not in names:
            complete.append(waiting[0])
            waiting = waiting[1:]
        else:
            waiting = optional.get(word, [])
        complete.append(word)
    return complete


def no_number(words: Sequence[str], value: str) -> str:
    """What is wrong with a flag's value that is no whole number; Invoke does not say whose it is."""
    flags = [flag for flag, given in itertools.pairwise(words) if given == value and flag.startswith("-")]
    flags += [word.removesuffix(f"={value}") for word in words if word.endswith(f"={value}")]
    return f"{flags[0] if flags else 'a flag'} takes a whole number, and {value!r} is none"


def hold_environment() -> None:
    """Keep the environment this command runs in from being removed until it ends (bin/make_venv.py)."""
    with contextlib.suppress(OSError):  # another user's, or none that bin/invoke made
        marker = os.open(Path(sys.prefix) / ".used", os.O_RDONLY)
        fcntl.flock(marker, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(marker)


def main() -> None:
    """Entry point of `invoke` in lab's environment."""
    streams.keep_files_utf8()
    streams.prepare()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))  # nothing is begun yet
    hold_environment()
    web.spare_loopback()
    LabProgram(version=__version__, binary="invoke").run()

"""Standard input, output and error, whatever they were when lab was started: closed, full, or not UTF-8."""

from __future__ import annotations

import codecs
import contextlib
import io
import locale
import os
import sys
from typing import TextIO

_PLAIN = {
    "✓": "+", "✗": "x", "■": "#", "▸": ">", "│": "|", "•": "*", "·": "-", "…": "...", "→": "->",
    "\ufffd": "?",
}  # fmt: skip
"""lab's own marks where the terminal's encoding has none of them."""


class Output(io.TextIOWrapper):
    """A standard stream whose end is no end of the work: a reader who went away, or a full disk.

    `fault` is the first error; from then on all that is written is dropped.
    """

    fault: OSError | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """What is still buffered goes nowhere, rather than fail again when Python ends."""
        self.fault = self.fault or error
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


def keep_files_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale is another: what lab keeps in files is UTF-8.

    The terminal keeps its own encoding all the same.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def prepare() -> None:
    """Make the standard streams fit for what follows. To be called once, before anything is opened.

    A closed one becomes /dev/null: the next file that is opened would have its number otherwise, and
    receive what is meant for it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    codecs.register_error("lab.plain", _plain)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - it lasts as long as lab
    with contextlib.suppress(AttributeError):  # not a real file under every test runner
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = _output(sys.stdout, 1), _output(sys.stderr, 2)


def _output(stream: TextIO | None, number: int) -> Output:
    encoding = stream.encoding if stream else "utf-8"
    if sys.flags.utf8_mode and not os.environ.get("PYTHONIOENCODING"):
        encoding = locale.getencoding()
    raw = open(number, "wb", closefd=False)  # noqa: SIM115 - it lasts as long as lab
    return Output(raw, encoding=encoding, errors="lab.plain", line_buffering=number == 2 or os.isatty(number))


def _plain(error: UnicodeError) -> tuple[str, int]:
    """How what an encoding lacks is written (an error handler of codecs)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or _escape(sign) for sign in lacking), error.end


def _escape(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode("ascii")

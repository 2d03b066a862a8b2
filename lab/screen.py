"""The terminal is shared: by lab's live display, and by programs and raw output that a person asked for.

Whoever is about to write there past lab.tell says so here first, and the display is gone.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator
from typing import Protocol

from lab.errors import BlockedError, ExitCode, LabError


class Display(Protocol):
    """Something that redraws itself on the terminal. Hiding it twice is as good as once."""

    def hide(self) -> None: ...

    def show(self) -> None: ...


class ReaderGoneError(LabError):
    """Nobody reads standard output any more, as after `| head`: what is left to print is wanted by nobody."""

    exit_code = ExitCode.DONE


_displays: list[Display] = []


@contextlib.contextmanager
def used_by(display: Display) -> Iterator[None]:
    """`display` draws on the terminal while this lasts, and is gone when it ends."""
    _displays.append(display)
    try:
        display.show()
        yield
    finally:
        _displays.remove(display)
        display.hide()


@contextlib.contextmanager
def lent() -> Iterator[None]:
    """The terminal is somebody else's while this lasts: no display is on it."""
    shown = list(_displays)
    for display in shown:
        display.hide()
    try:
        yield
    finally:
        for display in shown:
            if display in _displays:
                display.show()


def write(raw: str | bytes) -> None:
    """Write to standard output as it is: for what a person asked to have as it is. No display comes back.

    Raises ReaderGoneError when nobody reads it, BlockedError when it cannot be written.
    """
    for display in _displays:
        display.hide()
    try:
        if isinstance(raw, str):
            sys.stdout.write(raw)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(raw)
        sys.stdout.flush()
        fault: OSError | None = getattr(sys.stdout, "fault", None)
    except OSError as error:
        fault = error
    if fault:
        refuse(fault)


def refuse(fault: OSError) -> None:
    """Raise what it means that standard output could not be written to."""
    if fault.errno == errno.EPIPE:
        raise ReaderGoneError("nobody reads standard output any more") from fault
    raise BlockedError(f"standard output cannot be written: {fault.strerror}") from fault

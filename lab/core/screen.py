"""The terminal is shared: by lab's live display, and by programs and raw output that a person asked for.

Whoever is about to write there past lab.core.tell says so here first, and the display is gone.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from lab.core.errors import BlockedError, ExitCode, LabError


class Display(Protocol):
    """Something that redraws itself on the terminal. Hiding or showing it twice is as good as once."""

    def hide(self) -> None: ...

    def show(self) -> None: ...


class ReaderGoneError(LabError):
    """Nobody reads standard output any more, as after `| head`: what is left to print is wanted by nobody."""

    exit_code = ExitCode.DONE


_displays: list[Display] = []
_borrowers: list[object] = []
_lock = threading.RLock()


@contextlib.contextmanager
def used_by(display: Display) -> Iterator[None]:
    """`display` draws on the terminal while this lasts, and is gone when it ends."""
    try:
        with _lock:
            _displays.append(display)
            _settle()
        yield
    finally:
        with _lock:
            _remove(display)


@contextlib.contextmanager
def lent() -> Iterator[None]:
    """The terminal is somebody else's while this lasts: no display is on it. It may be lent to several."""
    borrower = object()
    try:
        with _lock:
            _borrowers.append(borrower)
            _settle()
        yield
    finally:
        with _lock:
            _borrowers.remove(borrower)
            _settle()


def write(raw: str | bytes) -> None:
    """Write to standard output as it is: for what a person asked to have as it is. No display comes back.

    Raises ReaderGoneError when nobody reads it, BlockedError when it cannot be written.
    """
    with _lock:
        while _displays:
            _remove(_displays[0])
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
        _refuse(fault)


def _settle() -> None:
    for display in _displays:
        if _borrowers:
            display.hide()
        else:
            display.show()


def _remove(display: Display) -> None:
    if display in _displays:
        _displays.remove(display)
    display.hide()


def _refuse(fault: OSError) -> None:
    """Raise what it means that standard output could not be written to."""
    if fault.errno == errno.EPIPE:
        raise ReaderGoneError("nobody reads standard output any more") from fault
    raise BlockedError(f"standard output cannot be written: {fault.strerror}") from fault

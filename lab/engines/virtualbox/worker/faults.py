"""Every failure of VirtualBox's API as one kind of error, with VirtualBox's own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOT_FOUND = 0x80BB0001
INVALID_OBJECT_STATE = 0x80BB0007
INVALID_SESSION_STATE = 0x80BB000B
_DEAD = frozenset({0x80004004, 0x800706BE})
"""What every reference to a VBoxSVC that died answers (NS_ERROR_ABORT, and its DCOM sibling)."""


_REFUSALS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("refusals.json").read_text(encoding="utf-8")
)
"""Why a start is refused, by VirtualBox's codes or words. The first that is named decides: where VT-x is
refused and the fall back to the system's hypervisor, too, VirtualBox names both, and the first is what can be
mended (include/VBox/err.h, HMR3Init in HM.cpp)."""


class FaultError(Exception):
    """What the other side is told. `kind` says what to do about it:

    dead      VBoxSVC is gone, and this process with it: start a new one and look again
    missing   there is no such object
    busy      another session holds the machine
    blocked   the host lacks what a start needs, or another program has it
    nesting   the hypervisor does not start a VM with virtualization extensions
    foreign   the object is not lab's, and is left alone
    glue      vboxapi is missing, or not of the installed VirtualBox
    failed    anything else
    """

    def __init__(self, kind: str, what: str, tail: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.tail = tail
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "what": self.what, "tail": self.tail, "hint": self.hint}


def code(error: BaseException) -> int:
    """The COM result code of a pyvbox or xpcom error as an unsigned number; 0 when it has none."""
    for name in ("value", "errno", "hresult"):
        number = getattr(error, name, None)
        if isinstance(number, int) and number not in (0, -1):
            return number & 0xFFFFFFFF
    return 0


def text(error: BaseException) -> str:
    """VirtualBox's own words, as far as the binding kept them."""
    words = getattr(error, "msg", None) or getattr(error, "message", None) or str(error)
    return str(words).strip() or type(error).__name__


def explain(error: BaseException, doing: str) -> FaultError:
    """`error` as a FaultError."""
    if isinstance(error, FaultError):
        return error
    number, words = code(error), text(error)
    shown = f"{words} (0x{number:08x})" if number else f"{type(error).__name__}: {words}"
    if isinstance(error, RecursionError):
        return FaultError("dead", f"VBoxSVC died during: {doing}", shown)
    return of_code(number, words, doing, shown)


def of_code(number: int, words: str, doing: str, shown: str) -> FaultError:
    """A failure by its COM result code (0: unknown) and VirtualBox's words; a person reads `shown`."""
    if number in _DEAD:
        return FaultError("dead", f"VBoxSVC died during: {doing}", shown)
    if number == NOT_FOUND:
        return FaultError("missing", f"VirtualBox does not know what was asked for: {doing}", shown)
    if number in (INVALID_OBJECT_STATE, INVALID_SESSION_STATE) and "lock" in words.lower():
        return FaultError("busy", f"another program holds the VM: {doing}", shown)
    return of_text(words, doing, shown)


def of_text(words: str, doing: str, shown: str = "") -> FaultError:
    """A failure of which VirtualBox gave words only, as progress objects do."""
    if "VERR_CPUM_INVALID_HWVIRT_CONFIG" in words:
        return FaultError(
            "nesting", "VirtualBox does not start a VM with nested virtualization here", shown or words
        )
    for refusal in _REFUSALS:
        if any(sign in words for sign in refusal["signs"]):
            return FaultError("blocked", f"{refusal['what']}: {doing}", shown or words, refusal["hint"])
    return FaultError("failed", f"VirtualBox failed: {doing}", shown or words)


def finish(progress: Any, doing: str) -> None:
    """Wait for a progress object to end. It never raises by itself: what it says is looked at here.

    Raises FaultError.
    """
    while not progress.completed:
        progress.wait_for_completion(200)
    result = int(progress.result_code)
    if result == 0:
        return
    info = progress.error_info
    words = str(info.text) if info._i is not None else ""
    raise of_text(words, doing, f"{words or 'no word of explanation'} (0x{result & 0xFFFFFFFF:08x})")

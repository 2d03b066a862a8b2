"""Every failure of VirtualBox's API as one kind of error, with VirtualBox's own words."""

from __future__ import annotations

from typing import Any

NOT_FOUND = 0x80BB0001
INVALID_VM_STATE = 0x80BB0002
INVALID_OBJECT_STATE = 0x80BB0007
INVALID_SESSION_STATE = 0x80BB000B
_DEAD = frozenset({0x80004004, 0x800706BE})
"""What every reference to a VBoxSVC that died answers (NS_ERROR_ABORT, and its DCOM sibling)."""


class FaultError(Exception):
    """What the other side is told. `kind` says what to do about it:

    dead      VBoxSVC is gone, and this process with it: start a new one and look again
    missing   there is no such object
    busy      another session holds the machine
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
        found = getattr(error, name, None)
        if isinstance(found, int) and found not in (0, -1):
            return found & 0xFFFFFFFF
    return 0


def text(error: BaseException) -> str:
    """VirtualBox's own words, as far as the binding kept them."""
    said = getattr(error, "msg", None) or getattr(error, "message", None) or str(error)
    return str(said).strip() or type(error).__name__


def explain(error: BaseException, doing: str) -> FaultError:
    """`error` as a FaultError."""
    if isinstance(error, FaultError):
        return error
    number, said = code(error), text(error)
    shown = f"{said} (0x{number:08x})" if number else f"{type(error).__name__}: {said}"
    if isinstance(error, RecursionError):
        return FaultError("dead", f"VBoxSVC died during: {doing}", shown)
    return of_code(number, said, doing, shown)


def of_code(number: int, said: str, doing: str, shown: str) -> FaultError:
    """A failure by its COM result code (0: unknown) and VirtualBox's words; a person reads `shown`."""
    if number in _DEAD:
        return FaultError("dead", f"VBoxSVC died during: {doing}", shown)
    if number == NOT_FOUND:
        return FaultError("missing", f"VirtualBox does not know what was asked for: {doing}", shown)
    if number in (INVALID_OBJECT_STATE, INVALID_SESSION_STATE) and "lock" in said.lower():
        return FaultError("busy", f"another program holds the VM: {doing}", shown)
    return of_text(said, doing, shown)


def of_text(said: str, doing: str, shown: str = "") -> FaultError:
    """A failure of which VirtualBox gave words only, as progress objects do."""
    if "VERR_CPUM_INVALID_HWVIRT_CONFIG" in said:
        return FaultError(
            "nesting", "VirtualBox does not start a VM with nested virtualization here", shown or said
        )
    if "VERR_VM_DRIVER_NOT_INSTALLED" in said or "Kernel driver not installed" in said:
        return FaultError(
            "failed",
            f"VirtualBox's kernel driver is missing: {doing}",
            shown or said,
            "`invoke lab.doctor` says what this host lacks",
        )
    return FaultError("failed", f"VirtualBox failed: {doing}", shown or said)


def finish(progress: Any, doing: str, tell: Any = None) -> None:
    """Wait for a progress object to end. It never raises by itself: what it says is looked at here.

    `tell` receives its percentage now and then.
    """
    while not progress.completed:
        progress.wait_for_completion(200)
        if tell is not None:
            tell(int(progress.percent))
    result = int(progress.result_code)
    if result == 0:
        return
    info = progress.error_info
    said = str(info.text) if info._i is not None else ""
    raise of_text(said, doing, f"{said or 'no word of explanation'} (0x{result & 0xFFFFFFFF:08x})")

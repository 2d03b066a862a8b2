"""Every failure of VirtualBox's API as one kind of error, with VirtualBox's own words."""

from __future__ import annotations

from typing import Any

NOT_FOUND = 0x80BB0001
INVALID_VM_STATE = 0x80BB0002
INVALID_OBJECT_STATE = 0x80BB0007
INVALID_SESSION_STATE = 0x80BB000B
_DEAD = frozenset({0x80004004, 0x800706BE})
"""What every reference to a VBoxSVC that died answers (NS_ERROR_ABORT, and its DCOM sibling)."""


_FIRMWARE = (
    "switch VT-x or AMD-V (SVM) on in the firmware, or in a virtual machine nested virtualization for it"
)
_OTHERS = (
    "end the other hypervisor's machines, or on Linux unload its module: `rmmod kvm_intel` or `rmmod kvm_amd`"
)
_BELOW = "end other virtual machines, restart the host, or upgrade VirtualBox"
_DOCTOR = "`invoke lab.doctor` says what this host lacks"

# The first that is named decides: where VT-x is refused and the fall back to the system's hypervisor, too,
# VirtualBox names both, and the first is what can be mended (include/VBox/err.h, HMR3Init in HM.cpp).
_REFUSALS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("VERR_VM_DRIVER_NOT_INSTALLED", "VERR_VM_DRIVER_LOAD_ERROR", "Kernel driver not installed"),
        "VirtualBox's kernel driver is missing",
        _DOCTOR,
    ),
    (
        ("VERR_VM_DRIVER_NOT_ACCESSIBLE", "VERR_VM_DRIVER_OPEN_ERROR"),
        "this user may not open VirtualBox's kernel driver",
        _DOCTOR,
    ),
    (
        ("VERR_VM_DRIVER_VERSION_MISMATCH",),
        "VirtualBox's kernel driver is of another version",
        "build it anew: package virtualbox-dkms, or `/sbin/vboxconfig`; then restart, or reload vboxdrv",
    ),
    (
        ("VERR_VMX_IN_VMX_ROOT_MODE", "VERR_SVM_IN_USE", "VERR_SVM_HOST_SVME_NOT_ENABLED"),
        "another hypervisor, often KVM, has the processor's VT-x or AMD-V",
        _OTHERS,
    ),
    (
        (
            "VERR_VMX_MSR_ALL_VMX_DISABLED",
            "VERR_VMX_MSR_VMX_DISABLED",
            "VERR_VMX_MSR_SMX_VMX_DISABLED",
            "VERR_VMX_MSR_VMXON_DISABLED",
            "VERR_VMX_MSR_LOCKING_FAILED",
            "VERR_SVM_DISABLED",
        ),
        "VT-x or AMD-V is switched off in the host's firmware",
        _FIRMWARE,
    ),
    (
        ("VERR_VMX_NO_VMX", "VERR_SVM_NO_SVM", "VERR_HM_UNKNOWN_CPU", "VERR_UNSUPPORTED_CPU"),
        "the processor offers VirtualBox no VT-x or AMD-V",
        _FIRMWARE,
    ),
    (
        ("VERR_NEM_VM_CREATE_FAILED", "VERR_NEM_INIT_FAILED", "VERR_NEM_MISSING_KERNEL_API"),
        "the host's own hypervisor, which VirtualBox fell back to, did not make a VM",
        _BELOW,
    ),
    (
        ("VERR_NEM_NOT_AVAILABLE", "VERR_NEM_NOT_ENABLED"),
        "VirtualBox has neither VT-x or AMD-V nor the host's own hypervisor to run a VM with",
        _FIRMWARE,
    ),
)


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
    for codes, what, hint in _REFUSALS:
        if any(name in words for name in codes):
            return FaultError("blocked", f"{what}: {doing}", shown or words, hint)
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

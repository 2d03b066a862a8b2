"""Last words of QEMU, of Android's emulator and of what starts them: whose they are. Pure.

Only KVM's own words are evidence against KVM. An exit code, a signal, an errno or a program that is
missing is not: memory, permissions, a port or a person may be behind each. Sources: QEMU's
accel/kvm/kvm-all.c and target/i386/kvm/kvm.c for KVM's words; system/physmem.c, net/slirp.c and
accel/kvm/kvm-all.c for the troubles; the dynamic loader and the shell for theirs.
"""

from __future__ import annotations

import re
import signal

_LEVEL = r"(?:(?:[A-Z]+_)?(?:VERBOSE|DEBUG|INFO|WARNING|ERROR|FATAL) *\| *)?"
"""What Android's emulator puts before a line."""

KVM = re.compile(
    rf"^{_LEVEL}(?:\S+: )?(?:error: )?(?:KVM: entry failed|KVM internal error|KVM: unknown exit)",
    re.MULTILINE,
)
"""KVM says that it does not run the guest it was given. A line that begins so, and no other."""
STOPS = re.compile(KVM.pattern.replace("|KVM internal error", ""), re.MULTILINE)
"""Those of them after which QEMU never runs the guest on, though it may stay (kvm-all.c, kvm_cpu_exec).

After an internal error it does where the guest was in user space.
"""

MEMORY, PORT = "out of memory", "a port is in use or cannot be bound"
PERMISSION = "no permission"

_TROUBLES = (
    (
        MEMORY,
        r"cannot set up guest memory|cannot allocate memory|out of memory|std::bad_alloc|not enough memory",
    ),
    (
        PORT,
        r"could not set up host forwarding rule|address already in use|port is already allocated"
        r"|failed to bind|too many emulator instances",
    ),
    ("too many open files", r"too many open files"),
    (PERMISSION, r"permission denied|operation not permitted|doesn't have permissions"),
    ("a library is missing", r"error while loading shared libraries|symbol lookup error"),
    (
        "a program or file is missing",
        r": not found$|command not found|no such file or directory|cannot execute|exec format error"
        r"|not executable",
    ),
)
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE | re.MULTILINE)) for name, pattern in _TROUBLES)
_LAST_SIGNAL = 64
_OF_SIGNALS = 128
"""A shell's exit code for a program that a signal ended is this and the signal's number."""


def trouble(text: str) -> str:
    """What these words complain of, that is not KVM and stays as it is when tried again; empty if unknown."""
    return next((name for name, pattern in _PATTERNS if pattern.search(text)), "")


def exit_code(status: int | None) -> str:
    """An exit code in words, the signal's name with it: `exit code 137, SIGKILL`."""
    if status is None:
        return "exit code unknown"
    number = status - _OF_SIGNALS
    if not 0 < number <= _LAST_SIGNAL:
        return f"exit code {status}"
    try:
        return f"exit code {status}, {signal.Signals(number).name}"
    except ValueError:
        return f"exit code {status}, signal {number}"

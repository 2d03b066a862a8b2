"""Does KVM here really run a guest? Prints one line of JSON and needs nothing but Python 3.9.

A tiny guest writes a byte twice to a port and halts: once entered in real mode, as firmware
starts, and once in long mode. Each runs in a child process that is killed when its time is up:
`/dev/kvm` may open and answer, and then hang whatever runs in it.

Usage: python3 kvm_probe.py [--seconds N]   (per mode; 20 without)
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import mmap
import os
import pwd
import select
import signal
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - as Python 3.9 has it

DEVICE = "/dev/kvm"
API_VERSION = 12

GET_API_VERSION, CREATE_VM, GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
GET_SUPPORTED_CPUID, SET_CPUID2 = 0xC008AE05, 0x4008AE90
CREATE_VCPU, SET_USER_MEMORY_REGION, SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
RUN, SET_REGS, GET_SREGS, SET_SREGS = 0xAE80, 0x4090AE82, 0x8138AE83, 0x4138AE84

EXIT_IO, EXIT_HLT, EXIT_FAIL_ENTRY, EXIT_INTERNAL_ERROR = 2, 5, 9, 17
EXITS = {0: "unknown", 1: "exception", EXIT_IO: "io", EXIT_HLT: "hlt", 6: "mmio", 7: "irq_window",
         8: "shutdown", EXIT_FAIL_ENTRY: "fail_entry", 10: "intr",
         EXIT_INTERNAL_ERROR: "internal_error"}  # fmt: skip

MEMORY = 2 << 20
CODE, PML4, PDPT, PD, GDT, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
TSS = 0x7FFBD000  # three pages of guest address space that are not memory, for Intel's real mode
PORT = 0xE9
# mov al,bl; add al,cl; out dx,al; out dx,al; hlt: the same bytes in 16 and in 64 bits.
PROGRAM = bytes([0x88, 0xD8, 0x00, 0xC8, 0xEE, 0xEE, 0xF4])

SEGMENT = struct.Struct("<QIH10B")  # base limit selector type present dpl db s l g avl unusable padding
CONTROL = 24 * 8 + 16 * 2  # where the control registers begin in struct kvm_sregs

Say = Callable[..., Any]


def open_vm(kvm: int) -> tuple[mmap.mmap, int, mmap.mmap]:
    """A virtual machine with 2 MiB of memory and one virtual CPU: memory, vcpu, run area."""
    import ctypes

    vm = fcntl.ioctl(kvm, CREATE_VM, 0)
    with contextlib.suppress(OSError):
        fcntl.ioctl(vm, SET_TSS_ADDR, TSS)
    memory = mmap.mmap(-1, MEMORY)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, MEMORY, address))
    vcpu = fcntl.ioctl(vm, CREATE_VCPU, 0)
    area = mmap.mmap(vcpu, fcntl.ioctl(kvm, GET_VCPU_MMAP_SIZE, 0), mmap.MAP_SHARED)
    entries = 256
    cpuid = bytearray(struct.pack("<II", entries, 0) + bytes(40 * entries))
    fcntl.ioctl(kvm, GET_SUPPORTED_CPUID, cpuid, True)
    fcntl.ioctl(vcpu, SET_CPUID2, cpuid, True)
    return memory, vcpu, area


def segment(limit: int, selector: int, kind: int, *, db: int = 0, s: int = 1, long: int = 0) -> bytes:
    """A present segment at 0, its limit in pages when it is larger than 1 MiB."""
    return SEGMENT.pack(0, limit, selector, kind, 1, 0, db, s, long, int(limit > 0xFFFFF), 0, 0, 0)


def real_mode(sregs: bytearray, _memory: mmap.mmap) -> None:
    """As after reset, but with every segment at 0."""
    sregs[: 24 * 6] = segment(0xFFFF, 0, 11) + segment(0xFFFF, 0, 3) * 5


def long_mode(sregs: bytearray, memory: mmap.mmap) -> None:
    """64 bits, the first 2 MiB mapped onto themselves by one large page."""
    for table, entry in ((PML4, PDPT | 3), (PDPT, PD | 3), (PD, 0x80 | 3)):
        memory[table : table + 8] = struct.pack("<Q", entry)
    memory[GDT : GDT + 24] = struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
    code = segment(0xFFFFFFFF, 8, 11, long=1)
    data = segment(0xFFFFFFFF, 16, 3, db=1)
    sregs[: 24 * 7] = code + data * 5 + segment(0x67, 0, 11, s=0)  # the last is the task register
    sregs[24 * 8 : 24 * 8 + 16] = struct.pack("<QH6x", GDT, 23)
    cr0, cr4, efer = 0x80050033, 0x20, 0x500  # PG AM WP NE ET MP PE; PAE; LMA LME
    sregs[CONTROL : CONTROL + 48] = struct.pack("<6Q", cr0, 0, PML4, cr4, 0, efer)


def enter(prepare: Callable[[bytearray, mmap.mmap], None], say: Say) -> None:
    """Run the tiny guest once; `say(**facts)` is called as facts become known."""
    kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    memory, vcpu, area = open_vm(kvm)
    memory[CODE : CODE + len(PROGRAM)] = PROGRAM
    sregs = bytearray(312)
    fcntl.ioctl(vcpu, GET_SREGS, sregs, True)
    prepare(sregs, memory)
    fcntl.ioctl(vcpu, SET_SREGS, sregs, True)
    first, second = os.urandom(2)
    registers = [0, first, second, PORT, 0, 0, STACK, 0, *[0] * 8, CODE, 2]
    fcntl.ioctl(vcpu, SET_REGS, struct.pack("<18Q", *registers))
    say(started=True)
    expected = (first + second) & 0xFF
    exits: list[str] = []
    written: list[int] = []
    while len(exits) < 16:
        fcntl.ioctl(vcpu, RUN, 0)
        reason = struct.unpack_from("<I", area, 8)[0]
        exits.append(EXITS.get(reason, str(reason)))
        say(exits=exits, exit_reason=reason)
        if reason != EXIT_IO:
            judge(reason, area, written, [expected] * 2, say)
            return
        direction, size, port, count, offset = struct.unpack_from("<BBHIQ", area, 32)
        if (direction, size, port, count) == (1, 1, PORT, 1):
            written.append(area[offset])
            say(entered=True)
    say(error=f"no halt in {len(exits)} exits")


def judge(reason: int, area: mmap.mmap, written: list[int], expected: list[int], say: Say) -> None:
    """What the exit that ended the run means."""
    if reason == EXIT_HLT and written == expected:
        say(ok=True)
    elif reason == EXIT_HLT:
        say(error=f"halted after writing {written} instead of {expected}")
    elif reason == EXIT_FAIL_ENTRY:
        code = struct.unpack_from("<Q", area, 32)[0]
        say(hardware_entry_failure_reason=code, error=f"entry failed, hardware error {code:#x}")
    elif reason == EXIT_INTERNAL_ERROR:
        say(error=f"KVM internal error, suberror {struct.unpack_from('<I', area, 32)[0]}")
    else:
        say(error=f"unexpected exit: {EXITS.get(reason, reason)}")


def attempt(prepare: Callable[[bytearray, mmap.mmap], None], seconds: float) -> dict[str, Any]:
    """`enter` in a child that is killed after `seconds`; what became of it."""
    report: dict[str, Any] = {"started": False, "entered": False, "ok": False, "exits": [],
                              "exit_reason": None, "hardware_entry_failure_reason": None,
                              "error": ""}  # fmt: skip
    began = time.monotonic()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        serve(prepare, theirs)
    os.close(theirs)
    said, ended = listen(ours, began + seconds)
    os.close(ours)
    if not ended:
        os.kill(child, signal.SIGKILL)
    reap(child)
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            report.update(json.loads(line))
    if not ended:
        doing = "KVM_RUN" if report["started"] else "setting up the guest"
        report["error"] = f"{doing} did not end in {seconds:g} s (killed)"
    elif not report["ok"] and not report["error"]:
        report["error"] = "the probe's child ended without a word"
    report["seconds"] = round(time.monotonic() - began, 3)
    return report


def serve(prepare: Callable[[bytearray, mmap.mmap], None], pipe: int) -> None:
    """The child's life: report over the pipe, never return."""

    def say(**facts: Any) -> None:
        os.write(pipe, (json.dumps(facts) + "\n").encode())

    try:
        enter(prepare, say)
    except BaseException as error:
        say(error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def listen(pipe: int, until: float) -> tuple[str, bool]:
    """All that was said before the pipe closed, and whether it did in time."""
    said = b""
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        block = os.read(pipe, 65536)
        if not block:
            return said.decode(), True
        said += block
    return said.decode(), False


def reap(child: int) -> None:
    """Collect the child; one that even SIGKILL does not end is left behind."""
    for _ in range(60):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.05)


def device() -> dict[str, Any]:
    """The device node: who may open it, and whether we can."""
    facts: dict[str, Any] = {"exists": False, "opened": False, "api_version": None,
                             "mode": "", "owner": "", "group": "", "error": ""}  # fmt: skip
    try:
        about = Path(DEVICE).stat()
        facts.update(exists=True, mode=f"{stat.S_IMODE(about.st_mode):04o}")
        facts.update(owner=name_of(pwd.getpwuid, about.st_uid), group=name_of(grp.getgrgid, about.st_gid))
        kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        facts["opened"] = True
        facts["api_version"] = fcntl.ioctl(kvm, GET_API_VERSION, 0)
        os.close(kvm)
    except OSError as error:
        facts["error"] = f"{DEVICE}: {error.strerror}"
        return facts
    if facts["api_version"] != API_VERSION:
        facts["error"] = f"KVM API version {facts['api_version']}, not {API_VERSION}"
    return facts


def name_of(look_up: Callable[[int], Any], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def main(argv: list[str]) -> None:
    seconds = float(argv[argv.index("--seconds") + 1]) if "--seconds" in argv else 20.0
    node = device()
    facts = {
        "schema": "lab.kvm_probe/1",
        "device": node,
        "real_mode": None if node["error"] else attempt(real_mode, seconds),
        "long_mode": None if node["error"] else attempt(long_mode, seconds),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv)

"""Does KVM here really run a guest? Prints one line of JSON and needs nothing but Python 3.6.

A tiny guest writes a byte twice to a port and halts: once entered in real mode, as firmware
starts, and once in long mode. Each runs in a child process that is killed when its time is up:
`/dev/kvm` may open and answer, and then hang whatever runs in it.

`failure` says whose word a failure is: `kvm` is KVM's own about a guest it ran, `absent` that there
is no KVM behind the device; all others say nothing of KVM (lab.probes.kvm.Failure).

Usage: python3 kvm_probe.py [--seconds N]   (per mode; 20 without)
"""

import array
import contextlib
import errno
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
from typing import Any, Callable  # noqa: UP035 - as Python 3.6 has it

DEVICE = "/dev/kvm"
API_VERSION = 12

REQUESTS = {"KVM_GET_API_VERSION": 0xAE00, "KVM_CREATE_VM": 0xAE01, "KVM_GET_VCPU_MMAP_SIZE": 0xAE04,
            "KVM_GET_SUPPORTED_CPUID": 0xC008AE05, "KVM_SET_CPUID2": 0x4008AE90, "KVM_CREATE_VCPU": 0xAE41,
            "KVM_SET_USER_MEMORY_REGION": 0x4020AE46, "KVM_SET_TSS_ADDR": 0xAE47, "KVM_RUN": 0xAE80,
            "KVM_SET_REGS": 0x4090AE82, "KVM_GET_SREGS": 0x8138AE83,
            "KVM_SET_SREGS": 0x4138AE84}  # fmt: skip

_SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY)
FAILURES = {errno.EACCES: "permission", errno.EPERM: "permission", **dict.fromkeys(_SCARCE, "resource")}
ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # no node, or no driver behind it

EXIT_IO, EXIT_HLT, EXIT_FAIL_ENTRY, EXIT_INTR, EXIT_INTERNAL_ERROR = 2, 5, 9, 10, 17
EXITS = {0: "unknown", 1: "exception", EXIT_IO: "io", EXIT_HLT: "hlt", 6: "mmio", 7: "irq_window",
         8: "shutdown", EXIT_FAIL_ENTRY: "fail_entry", EXIT_INTERNAL_ERROR: "internal_error"}  # fmt: skip

MEMORY, PAGE = 2 << 20, 4096
CODE, PML4, PDPT, PD, GDT, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
TSS = 0x7FFBD000  # three pages of guest address space that are not memory, for Intel's real mode
PORT = 0xE9
# mov al,bl; add al,cl; out dx,al; out dx,al; hlt: the same bytes in 16 and in 64 bits.
PROGRAM = bytes([0x88, 0xD8, 0x00, 0xC8, 0xEE, 0xEE, 0xF4])

SEGMENT = struct.Struct("<QIH10B")  # base limit selector type present dpl db s l g avl unusable padding
CONTROL = 24 * 8 + 16 * 2  # where the control registers begin in struct kvm_sregs

Say = Callable[..., Any]
Prepare = Callable[[bytearray, memoryview], None]


class Trouble(Exception):  # noqa: N818 - no error of a program's
    """Whose word it is that something went wrong, and what: its two arguments."""

    def facts(self) -> "dict[str, Any]":
        return dict(zip(("failure", "error"), self.args))  # noqa: B905 - as Python 3.6 has it


def explained(error: BaseException, doing: str) -> Trouble:
    """Any error as the trouble it is, with the errno's name."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, MemoryError):
        return Trouble("resource", doing + ": out of memory")
    if not isinstance(error, OSError) or error.errno is None:
        return Trouble("tool", f"{doing}: {type(error).__name__}: {error}")
    name = errno.errorcode.get(error.errno, error.errno)
    return Trouble(FAILURES.get(error.errno, "system"), f"{doing}: {name} ({os.strerror(error.errno)})")


def ask(file: int, request: str, argument: Any = 0) -> Any:
    """One ioctl, again when a signal interrupts it. Raises Trouble with its name and the errno's."""
    while True:
        try:
            return fcntl.ioctl(file, REQUESTS[request], argument)
        except InterruptedError:
            continue
        except OSError as error:
            raise explained(error, request) from error


def open_vm(kvm: int) -> "tuple[memoryview, int, mmap.mmap]":
    """A virtual machine with 2 MiB of memory and one virtual CPU: memory, vcpu, run area."""
    vm = ask(kvm, "KVM_CREATE_VM")
    ask(vm, "KVM_SET_TSS_ADDR", TSS)
    room = array.array("B", bytes(MEMORY + PAGE))  # no ctypes: small Pythons have none
    skipped = -room.buffer_info()[0] % PAGE
    memory, address = memoryview(room)[skipped : skipped + MEMORY], room.buffer_info()[0] + skipped
    ask(vm, "KVM_SET_USER_MEMORY_REGION", struct.pack("<IIQQQ", 0, 0, 0, MEMORY, address))
    vcpu = ask(vm, "KVM_CREATE_VCPU")
    area = mmap.mmap(vcpu, ask(kvm, "KVM_GET_VCPU_MMAP_SIZE"), mmap.MAP_SHARED)
    cpuid = bytearray(struct.pack("<II", 256, 0) + bytes(40 * 256))  # a table of 256 entries
    ask(kvm, "KVM_GET_SUPPORTED_CPUID", cpuid)
    ask(vcpu, "KVM_SET_CPUID2", cpuid)
    return memory, vcpu, area


def segment(limit: int, selector: int, kind: int, *, db: int = 0, s: int = 1, long: int = 0) -> bytes:
    """A present segment at 0, its limit in pages when it is larger than 1 MiB."""
    return SEGMENT.pack(0, limit, selector, kind, 1, 0, db, s, long, int(limit > 0xFFFFF), 0, 0, 0)


def real_mode(sregs: bytearray, _memory: memoryview) -> None:
    """As after reset, but with every segment at 0."""
    sregs[: 24 * 6] = segment(0xFFFF, 0, 11) + segment(0xFFFF, 0, 3) * 5


def long_mode(sregs: bytearray, memory: memoryview) -> None:
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


def enter(prepare: Prepare, say: Say) -> None:
    """Run the tiny guest once; `say(**facts)` is called as facts become known."""
    kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    memory, vcpu, area = open_vm(kvm)
    memory[CODE : CODE + len(PROGRAM)] = PROGRAM
    sregs = bytearray(312)
    ask(vcpu, "KVM_GET_SREGS", sregs)
    prepare(sregs, memory)
    ask(vcpu, "KVM_SET_SREGS", sregs)
    first, second = os.urandom(2)
    registers = [0, first, second, PORT, 0, 0, STACK, 0, *[0] * 8, CODE, 2]
    ask(vcpu, "KVM_SET_REGS", struct.pack("<18Q", *registers))
    say(started=True)
    expected = (first + second) & 0xFF
    exits: list[str] = []
    written: list[int] = []
    while len(exits) < 16:
        ask(vcpu, "KVM_RUN")
        reason = struct.unpack_from("<I", area, 8)[0]
        if reason == EXIT_INTR:  # a signal's doing, and not the guest's
            continue
        exits.append(EXITS.get(reason, str(reason)))
        say(exits=exits, exit_reason=reason)
        if reason != EXIT_IO:
            judge(reason, area, written, [expected] * 2, say)
            return
        direction, size, port, count, offset = struct.unpack_from("<BBHIQ", area, 32)
        if (direction, size, port, count) == (1, 1, PORT, 1):
            written.append(area[offset])
            say(entered=True)
    say(failure="kvm", error=f"no halt in {len(exits)} exits")


def judge(reason: int, area: mmap.mmap, written: "list[int]", expected: "list[int]", say: Say) -> None:
    """What the exit that ended the run means."""
    if reason == EXIT_HLT and written == expected:
        say(ok=True)
    elif reason == EXIT_HLT:
        say(failure="kvm", error=f"halted after writing {written} instead of {expected}")
    elif reason == EXIT_FAIL_ENTRY:
        code = struct.unpack_from("<Q", area, 32)[0]
        why = f"entry failed, hardware error {code:#x}"
        say(hardware_entry_failure_reason=code, failure="kvm", error=why)
    elif reason == EXIT_INTERNAL_ERROR:
        code = struct.unpack_from("<I", area, 32)[0]
        say(failure="kvm", error=f"KVM internal error, suberror {code}")
    else:
        say(failure="kvm", error=f"unexpected exit: {EXITS.get(reason, reason)}")


def attempt(prepare: Prepare, seconds: float) -> "dict[str, Any]":
    """`enter` in a child that is killed after `seconds`; what became of it."""
    report: dict[str, Any] = {"started": False, "entered": False, "ok": False, "exits": [],
                              "exit_reason": None, "hardware_entry_failure_reason": None,
                              "failure": "", "error": ""}  # fmt: skip
    began = time.monotonic()
    try:
        ours, theirs = os.pipe()
        child = os.fork()
    except OSError as error:
        return {**report, **explained(error, "starting the probe's child").facts(), "seconds": 0.0}
    if child == 0:
        os.close(ours)
        serve(prepare, theirs)
    os.close(theirs)
    heard, ended = listen(ours, began + seconds)
    os.close(ours)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status, used = reap(child)
    for line in heard.splitlines():
        with contextlib.suppress(ValueError):
            report.update(json.loads(line))
    if not report["ok"] and not report["failure"]:
        failure, why = end(status)
        if not ended:
            failure, doing = "timeout", "KVM_RUN" if report["started"] else "setting up the guest"
            why = f"{doing} did not end in {seconds:g} s (killed; {used:.1f} s of them on the processor)"
        report.update(failure=failure, error=why)
    report["seconds"] = round(time.monotonic() - began, 3)
    return report


def end(status: int) -> "tuple[str, str]":
    """(failure, why) of a child that ended without a word of its own."""
    if not os.WIFSIGNALED(status):
        return "tool", f"the probe's child ended without a word (status {os.WEXITSTATUS(status)})"
    number = os.WTERMSIG(status)
    names = {known.value: known.name for known in signal.Signals}
    hint = ", as the kernel does for want of memory" if number == signal.SIGKILL else ""
    return "killed", f"the probe's child was killed by {names.get(number, number)}{hint}"


def serve(prepare: Prepare, pipe: int) -> None:
    """The child's life: report over the pipe, never return."""

    def say(**facts: Any) -> None:
        os.write(pipe, (json.dumps(facts) + "\n").encode())

    try:
        enter(prepare, say)
    except BaseException as error:
        say(**explained(error, "setting up the guest").facts())
    finally:
        os._exit(0)


def listen(pipe: int, until: float) -> "tuple[str, bool]":
    """All that was said before the pipe closed, and whether it did in time."""
    heard, ended = b"", False
    while not ended and select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        block = os.read(pipe, 65536)
        heard, ended = heard + block, not block
    return heard.decode(), ended


def reap(child: int) -> "tuple[int, float]":
    """Its wait status and its seconds on the processor; what even SIGKILL does not end is left behind."""
    for _ in range(60):
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            return status, used.ru_utime + used.ru_stime
        time.sleep(0.05)
    return 0, 0.0


def device() -> "dict[str, Any]":
    """The device node: who may open it, and whether we can."""
    facts: dict[str, Any] = {"exists": False, "opened": False, "api_version": None, "mode": "",
                             "owner": "", "group": "", "failure": "", "error": ""}  # fmt: skip
    try:
        about = os.stat(DEVICE)  # noqa: PTH116 - a device, and no path to go on from
        facts.update(exists=True, mode=f"{stat.S_IMODE(about.st_mode):04o}")
        facts.update(owner=name_of(pwd.getpwuid, about.st_uid), group=name_of(grp.getgrgid, about.st_gid))
        kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        facts.update(explained(error, DEVICE).facts())
        if error.errno in ABSENT:
            facts["failure"] = "absent"
        return facts
    facts["opened"] = True
    try:
        facts["api_version"] = version = ask(kvm, "KVM_GET_API_VERSION")
        if version != API_VERSION:
            raise Trouble("tool", f"KVM API version {version}, and the probe knows {API_VERSION}")
    except Trouble as trouble:
        facts.update(trouble.facts())
    finally:
        os.close(kvm)
    return facts


def name_of(look_up: Callable[[int], Any], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def main(argv: "list[str]") -> None:
    seconds = float(argv[argv.index("--seconds") + 1]) if "--seconds" in argv else 20.0
    node = device()
    facts = {"schema": "lab.kvm_probe/1", "device": node, "real_mode": None, "long_mode": None}
    if not node["error"]:
        facts.update(real_mode=attempt(real_mode, seconds), long_mode=attempt(long_mode, seconds))
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv)

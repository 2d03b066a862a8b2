"""Talking to KVM by ioctls: what its answers are, and whose word an error is."""

import array
import errno
import fcntl
import mmap
import os
import struct
from typing import Any, Callable  # noqa: UP035 - as Python 3.6 has it

DEVICE = "/dev/kvm"
API_VERSION = 12

REQUESTS = {"KVM_GET_API_VERSION": 0xAE00, "KVM_CREATE_VM": 0xAE01, "KVM_CHECK_EXTENSION": 0xAE03,
            "KVM_GET_VCPU_MMAP_SIZE": 0xAE04, "KVM_GET_SUPPORTED_CPUID": 0xC008AE05,
            "KVM_SET_CPUID2": 0x4008AE90, "KVM_CREATE_VCPU": 0xAE41, "KVM_SET_USER_MEMORY_REGION": 0x4020AE46,
            "KVM_SET_TSS_ADDR": 0xAE47, "KVM_RUN": 0xAE80, "KVM_SET_REGS": 0x4090AE82,
            "KVM_GET_SREGS": 0x8138AE83, "KVM_SET_SREGS": 0x4138AE84, "KVM_SET_ONE_REG": 0x4010AEAC,
            "KVM_ARM_VCPU_INIT": 0x4020AEAE, "KVM_ARM_PREFERRED_TARGET": 0x8020AEAF}  # fmt: skip

_SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY)
FAILURES = {errno.EACCES: "permission", errno.EPERM: "permission", **dict.fromkeys(_SCARCE, "resource")}

EXIT_IO, EXIT_HLT, EXIT_MMIO, EXIT_FAIL_ENTRY, EXIT_INTR, EXIT_INTERNAL_ERROR = 2, 5, 6, 9, 10, 17
EXIT_SYSTEM_EVENT = 24
EXITS = {0: "unknown", 1: "exception", EXIT_IO: "io", EXIT_HLT: "hlt", EXIT_MMIO: "mmio", 7: "irq_window",
         8: "shutdown", EXIT_FAIL_ENTRY: "fail_entry", EXIT_INTERNAL_ERROR: "internal_error",
         EXIT_SYSTEM_EVENT: "system_event", 28: "arm_nisv"}  # fmt: skip

MEMORY, PAGE = 2 << 20, mmap.PAGESIZE  # up to 64 KiB on ARM

Say = Callable[..., Any]
ByteOf = Callable[[int, mmap.mmap], int | None]
IsHalt = Callable[[int, mmap.mmap], bool]


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


def give_memory(vm: int) -> memoryview:
    """2 MiB of memory for a virtual machine, at its address 0."""
    room = array.array("B", bytes(MEMORY + PAGE))  # no ctypes: small Pythons have none
    skipped = -room.buffer_info()[0] % PAGE
    memory, address = memoryview(room)[skipped : skipped + MEMORY], room.buffer_info()[0] + skipped
    ask(vm, "KVM_SET_USER_MEMORY_REGION", struct.pack("<IIQQQ", 0, 0, 0, MEMORY, address))
    return memory


def give_processor(kvm: int, vm: int) -> "tuple[int, mmap.mmap]":
    """A virtual processor, and the area in which it tells why it left the guest."""
    vcpu = ask(vm, "KVM_CREATE_VCPU")
    return vcpu, mmap.mmap(vcpu, ask(kvm, "KVM_GET_VCPU_MMAP_SIZE"), mmap.MAP_SHARED)


def run(vcpu: int, area: mmap.mmap, byte_of: ByteOf, is_halt: IsHalt, expected: int, say: Say) -> None:
    """Run the guest to its end: it is to write the byte `expected` twice, and to halt.

    `byte_of` gives the byte that the exit of that number wrote, None where it is no such exit; `is_halt`
    whether it is the guest's own halt. `say(**facts)` is called as facts become known.
    """
    say(started=True)
    exits: list[str] = []
    written: list[int] = []
    while len(exits) < 16:
        ask(vcpu, "KVM_RUN")
        reason = struct.unpack_from("<I", area, 8)[0]
        if reason == EXIT_INTR:  # a signal's doing, and not the guest's
            continue
        exits.append(EXITS.get(reason, str(reason)))
        say(exits=exits, exit_reason=reason)
        byte = byte_of(reason, area)
        if byte is not None:
            written.append(byte)
            say(entered=True)
        elif not is_halt(reason, area):
            refused(reason, area, say)
            return
        elif written == [expected] * 2:
            say(ok=True)
            return
        else:
            say(failure="kvm", error=f"halted after writing {written} instead of {[expected] * 2}")
            return
    say(failure="kvm", error=f"no halt in {len(exits)} exits")


def refused(reason: int, area: mmap.mmap, say: Say) -> None:
    """What an exit means that is nothing a tiny guest does: KVM's own word."""
    if reason == EXIT_FAIL_ENTRY:
        code = struct.unpack_from("<Q", area, 32)[0]
        why = f"entry failed, hardware error {code:#x}"
        say(hardware_entry_failure_reason=code, failure="kvm", error=why)
    elif reason == EXIT_INTERNAL_ERROR:
        code = struct.unpack_from("<I", area, 32)[0]
        say(failure="kvm", error=f"KVM internal error, suberror {code}")
    else:
        say(failure="kvm", error=f"unexpected exit: {EXITS.get(reason, reason)}")

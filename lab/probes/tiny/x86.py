"""The tiny guest for x86: it writes a byte twice to a port and halts, entered in real or in long mode."""

import mmap
import os
import struct
from typing import Callable, Optional  # noqa: UP035 - as Python 3.6 has it

from lab.probes.tiny.talk import DEVICE, EXIT_HLT, EXIT_IO, Say, ask, give_memory, give_processor, run

CODE, PML4, PDPT, PD, GDT, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
TSS = 0x7FFBD000  # three pages of guest address space that are not memory, for Intel's real mode
PORT = 0xE9
# mov al,bl; add al,cl; out dx,al; out dx,al; hlt: the same bytes in 16 and in 64 bits.
PROGRAM = bytes([0x88, 0xD8, 0x00, 0xC8, 0xEE, 0xEE, 0xF4])

SEGMENT = struct.Struct("<QIH10B")  # base limit selector type present dpl db s l g avl unusable padding
CONTROL = 24 * 8 + 16 * 2  # where the control registers begin in struct kvm_sregs

Prepare = Callable[[bytearray, memoryview], None]


def real_mode(say: Say) -> None:
    """Run the tiny guest as firmware starts."""
    enter_x86(real_segments, say)


def long_mode(say: Say) -> None:
    """Run the tiny guest in 64 bits."""
    enter_x86(long_segments, say)


def segment(limit: int, selector: int, kind: int, *, db: int = 0, s: int = 1, long: int = 0) -> bytes:
    """A present segment at 0, its limit in pages when it is larger than 1 MiB."""
    return SEGMENT.pack(0, limit, selector, kind, 1, 0, db, s, long, int(limit > 0xFFFFF), 0, 0, 0)


def real_segments(sregs: bytearray, _memory: memoryview) -> None:
    """As after reset, but with every segment at 0."""
    sregs[: 24 * 6] = segment(0xFFFF, 0, 11) + segment(0xFFFF, 0, 3) * 5


def long_segments(sregs: bytearray, memory: memoryview) -> None:
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


def enter_x86(prepare: Prepare, say: Say) -> None:
    """Run the tiny guest once; `say(**facts)` is called as facts become known."""
    kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    vm = ask(kvm, "KVM_CREATE_VM")
    ask(vm, "KVM_SET_TSS_ADDR", TSS)
    memory = give_memory(vm)
    vcpu, area = give_processor(kvm, vm)
    cpuid = bytearray(struct.pack("<II", 256, 0) + bytes(40 * 256))  # a table of 256 entries
    ask(kvm, "KVM_GET_SUPPORTED_CPUID", cpuid)
    ask(vcpu, "KVM_SET_CPUID2", cpuid)
    memory[CODE : CODE + len(PROGRAM)] = PROGRAM
    sregs = bytearray(312)
    ask(vcpu, "KVM_GET_SREGS", sregs)
    prepare(sregs, memory)
    ask(vcpu, "KVM_SET_SREGS", sregs)
    first, second = os.urandom(2)
    registers = [0, first, second, PORT, 0, 0, STACK, 0, *[0] * 8, CODE, 2]
    ask(vcpu, "KVM_SET_REGS", struct.pack("<18Q", *registers))
    run(vcpu, area, port_byte, is_hlt, (first + second) & 0xFF, say)


def port_byte(reason: int, area: mmap.mmap) -> Optional[int]:  # noqa: UP045 - as Python 3.6 has it
    """The byte that this exit wrote to the port."""
    direction, size, port, count, offset = struct.unpack_from("<BBHIQ", area, 32)
    if reason == EXIT_IO and (direction, size, port, count) == (1, 1, PORT, 1):
        return int(area[offset])
    return None


def is_hlt(reason: int, _area: mmap.mmap) -> bool:
    """The processor halted."""
    return reason == EXIT_HLT

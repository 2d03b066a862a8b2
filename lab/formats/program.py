"""Static Linux programs of a few hundred bytes, made here: whoever runs one ran user space there."""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 64 + 56
_HEADERS_32 = 52 + 32

SIGNATURE = "hypervisor: "
"""What `hypervisor_signature` writes before the twelve bytes it read."""

_EXIT = bytes.fromhex("b83c000000 31ff 0f05")  # exit(0)
_POWER_OFF = bytes.fromhex(
    "b8a9000000 bfaddee1fe be69191228 badcfe2143 4531d2 0f05"  # reboot(magic, magic, POWER_OFF)
    "b8a9000000 ba67452301 0f05"  # where that is not possible: RESTART, which ends QEMU -no-reboot
    "f390 ebfc"  # pause for ever: an init must not return
)

# ebx, ecx, edx of CPUID leaf 0x40000000 and a line's end, below the stack pointer; the three are zero
# where leaf 1 does not say that there is a hypervisor. The same bytes in 32 and in 64 bits.
_READ_SIGNATURE = bytes.fromhex(
    "b801000000 0fa2 0fbae11f 19f6 b800000040 0fa2 21f3 21f1 21f2"  # cpuid; bt ecx,31; sbb esi,esi; and …
    "895c24f0 894c24f4 895424f8 c64424fc0a"  # mov [sp-16],ebx; … mov byte [sp-4],10
)
_WRITE_SIGNATURE = bytes.fromhex("b801000000 bf01000000 488d7424f0 ba0d000000 0f05")  # write(1, rsp-16, 13)
_WRITE_SIGNATURE_32 = bytes.fromhex("b804000000 bb01000000 8d4c24f0 ba0d000000 cd80")
_EXIT_32 = bytes.fromhex("b801000000 31db cd80")


_X86_64, _AARCH64 = 62, 183
"""ELF's numbers of the processors."""

# mov x0,#1; adr x1,the text after the code; movz x2,#its size; mov x8,#64; svc #0: write. Then exit(0).
_ARM64_SAYS = (0xD2800020, 0x100000E1, 0xD2800002, 0xD2800808, 0xD4000001, 0xD2800000, 0xD2800BA8, 0xD4000001)
_ARM64_SIZE = 2
"""Which of these words has the size, from its bit 5 on."""


def static_elf(code: bytes, machine: int = _X86_64) -> bytes:
    """An ELF64 executable for Linux that begins with the first byte of `code`; `machine` as ELF has it."""
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load_read_execute = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + load_read_execute + code


def says(text: str, *, arm64: bool = False) -> bytes:
    """A program that writes `text` to its standard output and exits with 0."""
    if not arm64:
        return static_elf(_writing(text, _EXIT))
    words = list(_ARM64_SAYS)
    words[_ARM64_SIZE] |= len(text.encode()) << 5
    return static_elf(struct.pack("<8I", *words) + text.encode(), _AARCH64)


def says_and_powers_off(text: str) -> bytes:
    """An /init that writes `text` to the console and powers the machine off."""
    return static_elf(_writing(text, _POWER_OFF))


def hypervisor_signature() -> bytes:
    """A program that writes SIGNATURE and what the hypervisor beneath calls itself, as CPUID tells it.

    Twelve bytes and a line's end; all zero where there is no hypervisor. CPUID needs no rights, and
    under KVM it always leaves the guest.
    """
    return static_elf(_writing(SIGNATURE, _READ_SIGNATURE + _WRITE_SIGNATURE + _EXIT))


def hypervisor_signature_32() -> bytes:
    """The same for a kernel that runs 32-bit programs only."""
    rest = _READ_SIGNATURE + _WRITE_SIGNATURE_32 + _EXIT_32
    text = SIGNATURE.encode()
    # mov eax,4; mov ebx,1; mov ecx,the text; mov edx,its size; int 0x80
    before = bytes.fromhex("b804000000 bb01000000 b9")
    size = len(before) + 4 + 5 + 2
    where = struct.pack("<I", _BASE + _HEADERS_32 + size + len(rest))
    code = before + where + b"\xba" + struct.pack("<I", len(text)) + b"\xcd\x80" + rest + text
    return _static_elf_32(code)


def _static_elf_32(code: bytes) -> bytes:
    """As `static_elf`, for i386."""
    size = _HEADERS_32 + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _BASE + _HEADERS_32, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    load_read_execute = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    return ident + header + load_read_execute + code


def _writing(text: str, then: bytes) -> bytes:
    """write(1, text), then `then`; the text lies after the code."""
    message = text.encode()
    size = struct.pack("<I", len(message))
    # mov eax,1; mov edi,1; lea rsi,[rip+after the rest]; mov edx,size; syscall
    rest = b"\xba" + size + b"\x0f\x05" + then
    return bytes.fromhex("b801000000 bf01000000 488d35") + struct.pack("<I", len(rest)) + rest + message

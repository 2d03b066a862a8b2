"""Static Linux programs of a few hundred bytes, made here: whoever runs one ran x86-64 user space."""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 64 + 56

_EXIT = bytes.fromhex("b83c000000 31ff 0f05")  # exit(0)
_POWER_OFF = bytes.fromhex(
    "b8a9000000 bfaddee1fe be69191228 badcfe2143 4531d2 0f05"  # reboot(magic, magic, POWER_OFF)
    "b8a9000000 ba67452301 0f05"  # where that is not possible: RESTART, which ends QEMU -no-reboot
    "f390 ebfc"  # pause for ever: an init must not return
)


def static_elf(code: bytes) -> bytes:
    """An ELF64 executable for Linux on x86-64 whose entry point is the first byte of `code`."""
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load_read_execute = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + load_read_execute + code


def says(text: str) -> bytes:
    """A program that writes `text` to its standard output and exits with 0."""
    return static_elf(_writing(text, _EXIT))


def says_and_powers_off(text: str) -> bytes:
    """An /init that writes `text` to the console and powers the machine off."""
    return static_elf(_writing(text, _POWER_OFF))


def _writing(text: str, then: bytes) -> bytes:
    """write(1, text), then `then`; the text lies after the code."""
    message = text.encode()
    size = struct.pack("<I", len(message))
    # mov eax,1; mov edi,1; lea rsi,[rip+after the rest]; mov edx,size; syscall
    rest = b"\xba" + size + b"\x0f\x05" + then
    return bytes.fromhex("b801000000 bf01000000 488d35") + struct.pack("<I", len(rest)) + rest + message

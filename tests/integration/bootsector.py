"""A guest of 512 bytes: it counts its boots on the disk and its heartbeats on the serial port.

At power-on it reads sector 2, adds one, writes it back and prints `boot 0003`; then it prints
`beat 0001`, `beat 0002`, … about five times a second, sleeping in between. `polite` guests
power off when the power button is pressed; others never look. Where the button is depends on the
chipset: `acpi`.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline, NotYet, poll
from lab.engines.protocol import Machine

Q35 = (0x600, 0x2000)
"""ACPI's fixed registers on QEMU's q35: the base of PM1, and what put into PM1_CNT powers off."""
VIRTUALBOX = (0x4000, 0x3400)

_ORIGIN = 0x7C00
_BUFFER = 0x8000


class _Code:
    """Bytes with labels; relative jumps and absolute addresses are filled in at the end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.labels: dict[str, int] = {}
        self.fixups: list[tuple[int, int, str]] = []

    def emit(self, text: str) -> None:
        self.data += bytes.fromhex(text)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.data)

    def near(self, opcode: str, label: str) -> None:
        """An instruction with a 16-bit relative target (E8 call, E9 jump)."""
        self._refer(opcode, 2, label)

    def short(self, opcode: str, label: str) -> None:
        self._refer(opcode, 1, label)

    def address(self, opcode: str, label: str) -> None:
        self._refer(opcode, 0, label)

    def _refer(self, opcode: str, width: int, label: str) -> None:
        self.emit(opcode)
        self.fixups.append((len(self.data), width, label))
        self.data += bytes(width or 2)

    def finish(self) -> bytes:
        for at, width, label in self.fixups:
            size = width or 2
            value = self.labels[label] - (at + size) if width else _ORIGIN + self.labels[label]
            self.data[at : at + size] = value.to_bytes(size, "little", signed=bool(width))
        if len(self.data) > 510:
            raise ValueError("the boot sector is too long")
        return bytes(self.data).ljust(510, b"\0") + b"\x55\xaa"


def sector(polite: bool, acpi: tuple[int, int] = Q35) -> bytes:
    """The boot sector's machine code (16-bit real mode)."""
    code = _Code()
    base, power_off = acpi
    status, enable, control = (_word(base + offset) for offset in (0, 2, 4))
    code.emit("31C0 8ED8 8EC0 8ED0 BC007C FB")  # flat segments, stack, interrupts on
    code.emit("BB" + _BUFFER.to_bytes(2, "little").hex())  # the counter's sector goes to 0x8000
    code.emit("B80102 B90200 BA8000 CD13")  # BIOS: read one sector, cylinder 0, head 0, sector 2
    code.emit("FF060080")  # inc word [0x8000]
    code.emit("B80103 B90200 BA8000 CD13")  # BIOS: write it back
    code.emit("8B2E0080")  # mov bp, [0x8000]
    code.address("BE", "boot")
    code.near("E8", "line")
    if polite:
        code.emit(f"BA{enable} B80001 EF")  # enable the power button in the chipset's PM1_EN
    code.emit("31ED")
    code.label("loop")
    code.emit("B90400")
    code.label("sleep")
    code.emit("F4")  # until the next 18.2 Hz timer interrupt
    code.short("E2", "sleep")
    if polite:
        code.emit(f"BA{status} ED F6C401")  # PM1_STS: was the power button pressed?
        code.short("74", "awake")
        code.emit(f"BA{control} B8{_word(power_off)} EF")  # PM1_CNT: sleep state S5
        code.label("awake")
    code.emit("45")
    code.address("BE", "beat")
    code.near("E8", "line")
    code.near("E9", "loop")

    code.label("line")  # print the text at si and bp in hex
    code.emit("AC 84C0")
    code.short("74", "number")
    code.near("E8", "putc")
    code.short("EB", "line")
    code.label("number")
    code.emit("B90400")
    code.label("digit")
    code.emit("C1C504 89E8 240F 3C0A 7202 0427 0430")
    code.near("E8", "putc")
    code.short("E2", "digit")
    code.emit("B00A")
    code.label("putc")  # once the port takes another character
    code.emit("50 BAFD03")
    code.label("busy")
    code.emit("EC A820")
    code.short("74", "busy")
    code.emit("58 BAF803 EE C3")
    code.label("boot")
    code.data += b"boot \0"
    code.label("beat")
    code.data += b"beat \0"
    return code.finish()


def _word(value: int) -> str:
    return value.to_bytes(2, "little").hex()


def base_disk(target: Path, polite: bool = False, acpi: tuple[int, int] = Q35) -> Path:
    """A 1 MiB qcow2 image that boots the sector."""
    raw = target.with_suffix(".raw")
    raw.write_bytes(sector(polite, acpi).ljust(1 << 20, b"\0"))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target)]
    proc.run(convert, deadline=Deadline.after(30))
    raw.unlink()
    target.chmod(0o444)
    return target


class Heart:
    """What the guest of a machine has written on its serial port, by lab's protocol for any engine."""

    @staticmethod
    def lines(machine: Machine) -> list[tuple[str, int]]:
        if not machine.console().exists():
            return []
        text = machine.console().read_text(errors="replace")
        return [(word, int(number, 16)) for word, number in re.findall(r"(boot|beat) ([0-9a-f]{4})\n", text)]

    @classmethod
    def numbers(cls, machine: Machine, word: str) -> list[int]:
        """Those after `boot` or `beat`."""
        return [number for name, number in cls.lines(machine) if name == word]

    @classmethod
    def wait(cls, machine: Machine, more: int = 2) -> list[tuple[str, int]]:
        """All lines so far, once `more` heartbeats came after now."""
        start = len(cls.lines(machine))

        def enough() -> list[tuple[str, int]]:
            lines = cls.lines(machine)
            if [word for word, _ in lines[start:]].count("beat") < more:
                raise NotYet(f"{machine.status()}, {lines[-3:]}")
            return lines

        return poll(enough, Deadline.after(60), "the guest's heartbeat", every=0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

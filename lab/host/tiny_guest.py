"""The smallest Linux guest: a kernel, one program that says a word, power off."""

from __future__ import annotations

from pathlib import Path

from lab.formats import cpio, program

# With cmpxchg16b emulated, Linux 6.12's allocator now and then corrupts its lists under QEMU 7.2.
_EMULATED_CPU = "max,-la57,-cx16"


def initramfs(word: str) -> bytes:
    """An archive whose /init writes `word` to the console and powers off.

    /dev/console itself is in every kernel's own archive.
    """
    return cpio.pack({"init": cpio.CpioEntry.file(program.says_and_powers_off(f"\n{word}\n"), 0o755)})


def command(qemu: str, accelerator: str, kernel: Path, archive: Path, serial: Path) -> list[str]:
    """QEMU's arguments for this guest: no network, no disk, no window; the console goes to a file."""
    return [
        qemu,
        *("-name", "lab-kvm-probe"),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-machine", "q35"),
        *("-accel", accelerator),
        *("-cpu", "host" if accelerator == "kvm" else _EMULATED_CPU),
        *("-smp", "1"),
        *("-m", "256"),
        *("-display", "none"),
        *("-serial", f"file:{serial}"),
        *("-kernel", str(kernel)),
        *("-initrd", str(archive)),
        *("-append", "console=ttyS0 quiet panic=-1 rdinit=/init"),
    ]

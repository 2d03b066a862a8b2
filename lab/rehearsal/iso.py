"""A CD that boots a Linux kernel on a PC's BIOS (El Torito), by isolinux."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import pycdlib

from lab.core.errors import BlockedError
from lab.rehearsal.pc import kernel_line


class Loader(NamedTuple):
    """The files that boot the CD: the one the BIOS starts, and the one that it loads next."""

    first: Path
    module: Path


LOADER = Loader(Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"))
"""In Debian's packages isolinux and syslinux-common."""
_SECTORS = 4
"""Of 512 bytes, which the BIOS reads of isolinux.bin: it reads the rest itself (its isolinux.txt)."""


def write(output: Path, kernel: Path, initramfs: Path, command_line: str, loader: Loader = LOADER) -> None:
    """Write the CD to `output`. Raises UsageError for a command line that is none, BlockedError."""
    for path in loader:
        if not path.exists():
            raise BlockedError(
                f"{path} is not there, which boots the emulated PC",
                hint="Debian's packages isolinux and syslinux-common bring it",
            )
    line = kernel_line(command_line)
    settings = f"DEFAULT lab\nPROMPT 0\nLABEL lab\nKERNEL /VMLINUZ\nINITRD /INITRD\nAPPEND {line}\n"
    image = pycdlib.PyCdlib()
    image.new()
    image.add_file(str(loader.first), "/ISOLINUX.BIN;1")
    image.add_file(str(loader.module), "/LDLINUX.C32;1")
    image.add_fp(io.BytesIO(settings.encode()), len(settings), "/ISOLINUX.CFG;1")
    image.add_file(str(kernel), "/VMLINUZ.;1")
    image.add_file(str(initramfs), "/INITRD.;1")
    image.add_eltorito(
        "/ISOLINUX.BIN;1", bootcatfile="/BOOT.CAT;1", boot_load_size=_SECTORS, boot_info_table=True
    )
    image.write(str(output))
    image.close()

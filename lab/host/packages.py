"""The system packages lab needs: the one place that names them, for Debian and for Homebrew."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Purpose = Literal[
    "qemu", "convert-disk", "ssh", "adb", "build-image", "rehearsal", "rehearsal-amd", "tests", "vagrant"
]

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Not on an ordinary Debian user's PATH, and where mke2fs and sfdisk are."""


@dataclass(frozen=True)
class Requirement:
    """Programs and files lab uses, and the packages that bring them.

    `homebrew` is None for what macOS cannot have; an `unprivileged` one is needed by all but root. Where the
    file `shipped` exists, one of lab's own libraries brings the program, and none is needed.
    """

    programs: tuple[str, ...]
    why: str
    debian: str
    needed_for: frozenset[Purpose]
    homebrew: str | None = None
    files: tuple[Path, ...] = ()
    unprivileged: bool = False
    shipped: Path | None = None
    optional: bool = False
    """lab works without it: it is installed along with what must be, where it can be, and never asked for."""

    def absent(self, instead: Mapping[str, str]) -> list[str]:
        """Those of its programs and files that are not there."""
        if self.shipped is not None and self.shipped.exists():
            return []
        programs = [instead.get(name, name) for name in self.programs]
        return [name for name in programs if not find_program(name)] + [
            str(path) for path in self.files if not path.exists()
        ]


def _for(*purposes: Purpose) -> frozenset[Purpose]:
    return frozenset(purposes)


_IMAGE, _TESTS = _for("build-image"), _for("tests")
_REHEARSAL, _VAGRANT = _for("rehearsal"), _for("vagrant")

_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HEADER = Path("/usr/include/dlfcn.h")
# In adbutils' wheels for macOS on Intel and Linux on x86_64; none of its others holds a program.
_ADB = Path(str(getattr(importlib.util.find_spec("adbutils"), "origin", ""))).parent / "binaries" / "adb"
_BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
_VGABIOS = Path("/usr/share/vgabios/vgabios.bin")
_ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
_LDLINUX = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")
_SCREEN = Path(f"/usr/lib/{platform.machine()}-linux-gnu/bochs/plugins/libbx_term_gui.so")
_PLUGIN = Path("/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json")

TABLE: tuple[Requirement, ...] = (
    Requirement(
        ("qemu-system-x86_64",),
        "runs the lab VM, or a PC with AMD-V",
        "qemu-system-x86",
        _for("qemu", "rehearsal-amd"),
        "qemu",
    ),
    Requirement(
        ("qemu-img",),
        "makes the VM's disks",
        "qemu-utils",
        _for("qemu", "convert-disk", "build-image", "rehearsal", "rehearsal-amd"),
        "qemu",
    ),
    Requirement(
        ("slirp4netns",),
        "keeps the host's loopback out of the VM's reach",
        "slirp4netns",
        _for("qemu"),
        optional=True,
    ),
    Requirement(
        ("ssh", "ssh-keygen"), "opens a shell in the VM", "openssh-client", _for("ssh", "tests"), "openssh"
    ),
    Requirement(
        ("adb",), "asks the nested guest over ADB", "adb", _for("adb"), "android-platform-tools", shipped=_ADB
    ),
    Requirement(("mmdebstrap",), "builds root file systems", "mmdebstrap", _IMAGE),
    Requirement(("newuidmap",), "lets mmdebstrap build without root", "uidmap", _IMAGE, unprivileged=True),
    Requirement((), "Debian's archive keys", "debian-archive-keyring", _IMAGE, files=(_KEYRING,)),
    Requirement(
        ("mke2fs", "e2fsck", "debugfs"),
        "make file systems, and read them",
        "e2fsprogs",
        _for("build-image", "rehearsal", "rehearsal-amd"),
    ),
    Requirement(("sfdisk",), "partitions the VM's disk", "fdisk", _IMAGE),
    Requirement(("mkfs.vfat",), "makes the boot partition", "dosfstools", _IMAGE),
    Requirement(("mcopy",), "fills the boot partition", "mtools", _IMAGE),
    Requirement(("syslinux",), "makes the VM's disk bootable", "syslinux", _IMAGE),
    Requirement(
        (),
        "the boot sector, and half of the loader",
        "syslinux-common",
        _for("build-image", "rehearsal"),
        files=(_MBR, _LDLINUX),
    ),
    Requirement(("cpio",), "packs the VM's initramfs", "cpio", _IMAGE),
    Requirement(("bochs",), "emulates a PC with VT-x", "bochs", _REHEARSAL),
    Requirement((), "its screen, which listens nowhere", "bochs-term", _REHEARSAL, files=(_SCREEN,)),
    # Debian's Bochs is content with SeaBIOS in their place, which has neither file.
    Requirement((), "that PC's BIOS", "bochsbios", _REHEARSAL, files=(_BIOS,)),
    Requirement((), "its screen's BIOS", "vgabios", _REHEARSAL, files=(_VGABIOS,)),
    Requirement((), "starts that PC's kernel", "isolinux", _REHEARSAL, files=(_ISOLINUX,)),
    Requirement(("gpg",), "makes signing keys in tests", "gpg", _TESTS, "gnupg"),
    Requirement(("gpg-agent",), "keeps them", "gpg-agent", _TESTS, "gnupg"),
    Requirement(("gpgconf",), "ends the agent", "gpgconf", _TESTS, "gnupg"),
    Requirement(("sshd",), "stands in for the VM in tests", "openssh-server", _TESTS),
    Requirement(("gcc",), "compiles a stand-in in tests", "gcc", _TESTS),
    Requirement(("as", "ld"), "assembles a guest in tests", "binutils", _TESTS),
    Requirement((), "the C library's headers", "libc6-dev", _TESTS, files=(_HEADER,)),
    Requirement(("vagrant",), "makes a VM in tests", "vagrant", _VAGRANT),
    Requirement((), "its libvirt provider", "vagrant-libvirt", _VAGRANT, files=(_PLUGIN,)),
    Requirement(("libvirtd",), "runs that VM", "libvirt-daemon", _VAGRANT),
    Requirement(("virsh",), "asks how it is", "libvirt-clients", _VAGRANT),
    Requirement(("virt-qemu-run",), "is libvirt's QEMU", "libvirt-daemon-driver-qemu", _VAGRANT),
    Requirement(("docker-registry",), "serves images in tests", "docker-registry", _TESTS),
    Requirement(("chromium",), "shows pages in tests", "chromium", _TESTS),
)


@dataclass(frozen=True)
class Installer:
    """How this user installs packages on this host; `manager` is empty where lab knows no way."""

    manager: Literal["apt", "brew", ""]
    root: bool
    sudo: bool
    macos: bool = False
    """Which names packages go by: those of Debian, or those of Homebrew, whether that is there or not."""

    @classmethod
    def detect(cls) -> Installer:
        """This user's, on this host."""
        manager: Literal["apt", "brew", ""] = ""
        macos = sys.platform == "darwin"
        if macos:
            manager = "brew" if find_program("brew") else ""
        elif find_program("apt-get"):
            manager = "apt"
        return cls(manager, os.geteuid() == 0, find_program("sudo") is not None, macos)

    def package(self, requirement: Requirement) -> str | None:
        """The package's name here; None when there is no such package."""
        return requirement.homebrew if self.macos else requirement.debian

    def commands(self, missing: Iterable[Requirement]) -> list[list[str]]:
        """The commands that install what is missing, as a person would type them."""
        names = sorted({name for item in missing if (name := self.package(item))})
        if not names or not self.manager:
            return []
        if self.manager == "brew":
            return [["brew", "install", *names]]
        prefix = [] if self.root else ["sudo"]
        return [
            [*prefix, "apt-get", "update"],
            [*prefix, "apt-get", "install", "-y", "--no-install-recommends", *names],
        ]


def missing(
    purposes: Collection[Purpose],
    *,
    instead: Mapping[str, str] | None = None,
    installer: Installer | None = None,
    table: Sequence[Requirement] = TABLE,
) -> list[Requirement]:
    """What is absent of all that `purposes` need.

    `instead` maps a program to the one the configuration uses in its place; `installer` is this host's.
    """
    root = os.geteuid() == 0
    absent = [
        item
        for item in table
        if item.needed_for & set(purposes) and not (item.unprivileged and root) and item.absent(instead or {})
    ]
    if all(item.optional for item in absent):
        return []
    installer = installer or Installer.detect()
    return [item for item in absent if not item.optional or installer.package(item)]


def impossible(purposes: Collection[Purpose], table: Sequence[Requirement] = TABLE) -> list[Requirement]:
    """What is absent of all that `purposes` need, and cannot be had on this system."""
    installer = Installer.detect()
    return [
        item
        for item in missing(purposes, installer=installer, table=table)
        if installer.package(item) is None
    ]


def find_program(name: str, beyond: Sequence[str] = _SYSTEM_FOLDERS) -> Path | None:
    """Where a program is: on PATH, or in the system folders an ordinary user's PATH leaves out."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *beyond])
    program = shutil.which(name, path=path)
    return Path(program) if program else None

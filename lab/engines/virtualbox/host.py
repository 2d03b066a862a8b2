"""This host as VirtualBox meets it: driver, rival hypervisors, what is installed. Its API is not used."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import InterruptedByUser, LabError
from lab.host import facts as host_facts
from lab.host.facts import HostFacts
from lab.probes.kvm import MODULES, own_module

System = Literal["linux", "macos"]

_ANSWER_SECONDS = 20
_MODULE = "vboxdrv"
_DEVICES = ("dev/vboxdrv", "dev/vboxdrvu")
_HOLDERS = frozenset({"kvm_intel", "kvm_amd"})
_VERSION = re.compile(r"^([0-9]+\.[0-9]+\.[0-9]+\S*)\r?$", re.MULTILINE)

_PLACES: dict[System, tuple[str, ...]] = {
    "linux": ("/usr/lib/virtualbox", "/usr/lib64/virtualbox", "/opt/VirtualBox"),
    "macos": ("/Applications/VirtualBox.app/Contents/MacOS",),
}
_PROGRAM_PATH = "VBOX_PROGRAM_PATH"
_SERVER = "VBoxSVC"

_SDK = (
    "sdk/installer/python/vboxapi/src",  # 7.1 and newer
    "sdk/installer",  # 6.1 and 7.0
)
_GLUE: dict[System, tuple[str, ...]] = {
    # Oracle's .deb and .rpm install the glue for the system's Python and drop `sdk/installer`
    # (src/VBox/Installer/linux/debian/rules); only its .run installer keeps that folder.
    "linux": (
        "../python3/dist-packages",  # Debian and Ubuntu
        *_SDK,
        "../python3*/site-packages",
        "../python3*/dist-packages",
        "../../lib/python3*/site-packages",
        "../../local/lib/python3*/dist-packages",
    ),
    "macos": _SDK,
}
"""Where the glue is, relative to the program folder, the surest first."""


@dataclass(frozen=True)
class HostVirtualBox:
    """`extensions` are "vmx", "svm", and on macOS "hv_support", as in lab.host.cpu.Cpu."""

    system: System
    cpu_model: str = ""
    extensions: tuple[str, ...] = ()
    five_level_paging: bool = False
    """In use by the host's kernel."""
    bare_metal: bool = False
    """The CPU says that no hypervisor is below."""
    silicon: bool = False
    """Apple silicon."""
    macos_version: str = ""
    """The release of macOS; empty elsewhere, and when it does not say."""
    driver_loaded: bool = False
    """vboxdrv is in /proc/modules; inside a container that is the host's, with no device."""
    driver_device: bool = False
    """/dev/vboxdrv is a character device. 6.1 has it on macOS too; 7.0 and newer load nothing there."""
    driver_usable: bool = False
    """This user may open /dev/vboxdrv, or vboxdrvu: enough where VirtualBox's VM processes are set-uid
    root, as Oracle and Debian install them. Only a start proves it."""
    kvm_modules: tuple[str, ...] = ()
    """Linux's KVM modules, built-in ones too."""
    kvm_at_load: bool | None = None
    """KVM takes the CPU's extension when it is loaded, and keeps it (kvm.enable_virt_at_load); None before
    Linux 6.12, which brought that: KVM has it only while a guest of its own runs."""

    @property
    def holders(self) -> tuple[str, ...]:
        """The KVM modules that may hold the CPU's extension."""
        return tuple(name for name in self.kvm_modules if name in _HOLDERS)


@dataclass(frozen=True)
class Installed:
    """A VirtualBox found on this host."""

    folder: Path
    """The program folder: it holds VBoxSVC."""
    version_hint: str = ""
    """What `VBoxManage --version` says, such as 7.2.22_Debianr175245; empty when it does not answer."""
    glue: tuple[Path, ...] = ()
    """Folders for PYTHONPATH in which `import vboxapi` finds the glue that came with it, the surest first."""


def _modules(facts: HostFacts) -> tuple[str, ...]:
    """KVM's modules, without that of another vendor: it holds nothing of this processor."""
    own = own_module(facts.cpu.extensions)
    loaded = facts.kvm.modules if facts.kvm else ()
    return tuple(name for name in loaded if not own or name == own or name not in MODULES.values())


def read(facts: HostFacts | None = None, root: Path = Path("/")) -> HostVirtualBox:
    """What can be read without VirtualBox. `facts` are read when not given; /proc and /dev are under `root`.

    Never raises for what cannot be read, which is left empty.
    """
    system = _system()
    if facts is None:
        facts = host_facts.read() if system == "macos" else host_facts.read(root)
    devices = [root / name for name in _DEVICES]
    return HostVirtualBox(
        system,
        cpu_model=facts.cpu.model,
        extensions=facts.cpu.extensions,
        five_level_paging=facts.cpu.five_level_paging,
        bare_metal=not facts.cpu.hypervisor,
        silicon=facts.mac is not None and facts.mac.silicon,
        macos_version=facts.os_version if system == "macos" else "",
        driver_loaded=_MODULE in parse_modules(_text(root / "proc/modules")),
        driver_device=_is_device(devices[0]),
        driver_usable=_is_device(devices[0])
        and any(_is_device(path) and os.access(path, os.R_OK | os.W_OK) for path in devices),
        kvm_modules=_modules(facts),
        kvm_at_load=_at_load(_text(root / "sys/module/kvm/parameters/enable_virt_at_load")),
    )


def _at_load(parameter: str) -> bool | None:
    return parameter.strip() in ("Y", "1") if parameter.strip() else None


def parse_modules(text: str) -> set[str]:
    """The names in Linux's /proc/modules."""
    return {line.split()[0] for line in text.splitlines() if line.strip()}


def installed(home: str = "", root: Path = Path("/")) -> Installed | None:
    """The VirtualBox of this host, None without one.

    A `home` that is given is the only place looked at; else VirtualBox's own variable and the
    system's usual places, which are under `root`. Runs VBoxManage once, with a deadline.
    """
    system = _system()
    for folder in [Path(home).expanduser()] if home else _places(system, root):
        if (folder / _SERVER).is_file():
            place = folder.absolute()
            return Installed(place, _version(place), glue(place, system))
    return None


def glue(folder: Path, system: System) -> tuple[Path, ...]:
    """The folders that really hold VirtualBox's Python glue, the surest first."""
    folders: dict[Path, None] = {}
    for entry in _GLUE[system]:
        start, pattern = folder, entry
        while pattern.startswith("../"):
            start, pattern = start.parent, pattern.removeprefix("../")
        for path in sorted(start.glob(pattern)):
            if (path / "vboxapi/__init__.py").is_file() or (path / "vboxapi.py").is_file():
                folders[path] = None
    return tuple(folders)


def parse_version(text: str) -> str:
    """The version in VBoxManage's output, which starts with warnings when the driver is not loaded."""
    matches = _VERSION.findall(text)
    return matches[-1] if matches else ""


def _system() -> System:
    return "macos" if sys.platform == "darwin" else "linux"


def _places(system: System, root: Path) -> Iterator[Path]:
    if chosen := os.environ.get(_PROGRAM_PATH):
        yield Path(chosen)
    yield from (root / place.removeprefix("/") for place in _PLACES[system])


def _version(folder: Path) -> str:
    program = folder / "VBoxManage"
    if not program.is_file():
        return ""
    try:
        done = proc.run([program, "--version"], check=False, deadline=Deadline.after(_ANSWER_SECONDS))
        return parse_version(done.out)
    except InterruptedByUser:
        raise
    except (LabError, OSError):
        return ""


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

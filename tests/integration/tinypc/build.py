"""Builds the PC's Linux from Debian's packages, without root: once for a recipe, kept in lab's cache."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.config import load
from lab.core import files, lock, proc, web
from lab.core.deadline import Deadline
from lab.core.steps import Steps
from lab.formats import cpio
from lab.formats.cpio import CpioEntry
from lab.guest import python
from lab.images import canary
from lab.images.archive import ArchiveKeys, DebianArchive
from lab.images.debtree import LIBRARY_FOLDERS, DebianTree
from lab.probes.kvm import script
from tests.integration.l2 import debian_archive

_HERE = Path(__file__).parent
_PACKAGES = ["busybox-static", "libpython3-stdlib", "linux-image-amd64", "python3-minimal"]
_APPLETS = ["base64", "dd", "dmesg", "grep", "insmod", "mount", "poweroff", "sh", "sleep", "sync"]
_MODULES = ("ata_piix", "sd_mod", "kvm_intel", "kvm_amd")
_SCRIPTS = ("cpu_facts.py", "kvm_probe.py")
_EXTENSIONS = ["ctypes", "resource"]  # loaded where they are used
_PYTHON = "/usr/bin/python3"
_FOLDERS = ("dev", "proc", "sys", "tmp")
_SIGNED = b"~Module signature appended~\n"
_SPACE = 1 << 29
_SECONDS = 300.0


@dataclass(frozen=True)
class TinyLinux:
    """What is cached: shared by all tests and written by none."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"


def built(cache: Path | None = None, say: Callable[[str], None] = print) -> TinyLinux:
    """The Linux in `cache` (lab's own by default), built if it is not there; one process builds."""
    folder = (cache or load().cache_dir) / "test-images"
    final = folder / f"tinypc-{_digest()[:12]}"
    with lock.when_free(lock.beside(final), "the emulated PC's Linux", say=say):
        if not final.is_dir():
            files.require_space(folder, _SPACE, "the emulated PC's Linux")
            with files.building(final) as work, tempfile.TemporaryDirectory() as scratch:
                _build(work, Path(scratch))
    return TinyLinux(final)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in _HERE.iterdir() if path.is_file()):
        digest.update(f"{path.name}\0{files.sha256(path)}\0".encode())
    for name in _SCRIPTS:
        digest.update(script(name).encode())
    return digest.hexdigest()


def _build(work: Path, scratch: Path) -> None:
    made, deadline = canary.recipe(), Deadline.after(_SECONDS)
    keys = ArchiveKeys(canary.SOURCES / made.keys, tuple(made.fingerprints))
    archive = DebianArchive(debian_archive(), made.suite, keys, web.HttpSession())
    tar = scratch / "debian.tar"
    with Steps().step("packages") as step:
        archive.extract(archive.resolve(_PACKAGES, deadline), scratch / "debs", tar, step, deadline)
    with DebianTree(tar) as tree:
        (work / "vmlinuz").write_bytes(canary._kernel(tree))
        # Not compressed: there is nothing to inflate for a processor that is a program itself.
        (work / "initramfs").write_bytes(cpio.pack(_files(tree, scratch / "root", deadline)))


def _files(tree: DebianTree, root: Path, deadline: Deadline) -> dict[str, CpioEntry]:
    entries = _python(tree, root, deadline)
    entries |= canary._busybox(tree, _APPLETS)
    for wanted in _MODULES:
        modules = {name: _unsigned(data) for name, data in canary._modules(tree, [wanted])}
        entries |= {f"lib/modules/{name}": CpioEntry.file(data) for name, data in modules.items()}
        entries[f"lib/modules/{wanted}"] = CpioEntry.file("".join(f"{name}\n" for name in modules).encode())
    entries |= {f"lab/{name}": CpioEntry.file(script(name).encode()) for name in _SCRIPTS}
    entries["bin/python3"] = CpioEntry.link(_PYTHON)
    entries["init"] = CpioEntry.file((_HERE / "init").read_bytes(), 0o755)
    entries["etc/passwd"] = CpioEntry.file(b"root:x:0:0:root:/:/bin/sh\n")
    entries["etc/group"] = CpioEntry.file(b"root:x:0:\n")
    return entries | {name: CpioEntry.folder() for name in _FOLDERS}


def _unsigned(module: bytes) -> bytes:
    """Without its signature: checking three of them takes an emulated processor 6 s."""
    return module.removesuffix(_SIGNED)


def _python(tree: DebianTree, root: Path, deadline: Deadline) -> dict[str, CpioEntry]:
    """Python, and compiled what lab's scripts import: compiling takes an emulated processor 10 s.

    It is that Python itself, run from the folder `root` by its own loader, that knows what belongs to it.
    """
    binary = tree.resolve(_PYTHON)
    assert binary is not None
    version = Path(binary.name).name
    library = f"/usr/lib/{version}"
    entries = dict(canary._program(tree, _PYTHON))
    for path in tree.under(f"{library}/lib-dynload"):
        if path.rpartition("/")[2].split(".")[0] in ("_ctypes", "mmap", "resource"):
            entries |= canary._program(tree, path)
    sources = {
        path.lstrip("/"): CpioEntry.file(data)
        for path in tree.under(library)
        if path.endswith(".py") and (data := tree.read(path)) is not None
    }
    for path, entry in cpio.with_folders(entries | sources).items():
        target = root / path
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.write_bytes(entry.data)
            target.chmod(entry.permissions)
    libraries = ":".join(f"{root}{folder}" for folder in LIBRARY_FOLDERS)
    loader = [root / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, f"{root}{_PYTHON}"]
    done = proc.run(
        [*loader, "-I", "-S", "-B", _HERE / "modules.py", root, *python.modules(), *_EXTENSIONS],
        deadline=deadline,
        env={"PYTHONHOME": str(root / "usr")},
    )
    return entries | dict(_needed(root, done.out.split()))


def _needed(root: Path, paths: list[str]) -> Iterator[tuple[str, CpioEntry]]:
    for path in map(Path, paths):
        yield str(path.relative_to(root)), CpioEntry.file(path.read_bytes())

"""The cached root: Debian sid with VirtualBox, the stand-in for VBoxHeadless, and a guest to boot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.config import load
from lab.core import files, lock, proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.images import apt_sources, mmdebstrap

_HERE = Path(__file__).parent
_STAND_IN = _HERE / "vboxheadless_driverless.c"
_SECTOR = _HERE / "boot.s"
_SUITE = "sid"
_COMPONENTS = ["main", "contrib"]
_ROOT = mmdebstrap.RootRecipe(
    suite=_SUITE,
    packages=["python3", "virtualbox"],
    components=_COMPONENTS,
    # An old signature does: what is tested here is VirtualBox, and a mirror may be frozen in time.
    apt_options=['Acquire::Check-Valid-Until "false"'],
)
_RECIPE = [
    *mmdebstrap.common_options(_ROOT),
    *mmdebstrap.trimming_options(),
    "--format=directory",
    _SUITE,
]
_SPACE = 3 << 29
_BUILD_SECONDS = 1200.0
_TOOL_SECONDS = 60.0


@dataclass(frozen=True)
class Root:
    """What is cached; shared by all instances and written by none."""

    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    def boot_disk(self, target: Path) -> Path:
        """A disk of 1 MiB that boots boot.s, in the format `target` ends with: .vdi, .vmdk, .qcow2."""
        convert = ["qemu-img", "convert", "-f", "raw", "-O", target.suffix[1:]]
        proc.run([*convert, self.folder / "boot.raw", target], deadline=Deadline.after(_TOOL_SECONDS))
        return target


def built(cache: Path | None = None, say: Callable[[str], None] | None = None) -> Root:
    """The root in `cache` (lab's own by default), built if it is not there. Only root can."""
    cache = cache or load().cache_dir / "test-roots"
    final = cache / f"virtualbox-{_SUITE}-{_digest()[:12]}"
    with lock.when_free(lock.beside(final), "the tests' VirtualBox root", say=say):
        if not final.is_dir():
            files.require_space(cache, _SPACE, "a Debian root with VirtualBox")
            with files.building(final) as work:
                work.chmod(0o755)
                root = Root(work)
                _bootstrap(root)
                _put_stand_in(root)
                _assemble(root)
    return Root(final)


def _digest() -> str:
    digest = hashlib.sha256("\0".join(_RECIPE).encode())
    for path in (_STAND_IN, _SECTOR, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bootstrap(root: Root) -> None:
    # In a mount namespace of its own: as root, mmdebstrap mounts /proc, /sys and parts of /dev in the
    # tree. Here they end with it even when it is killed, and removing the tree cannot reach through one.
    proc.run(
        ["unshare", "--mount", "--propagation=private", *_RECIPE, root.tree, "-"],
        deadline=Deadline.after(_BUILD_SECONDS),
        env={"DEBIAN_FRONTEND": "noninteractive"},
        log=root.folder / "mmdebstrap.log",
        stdin=apt_sources.lines_for(_SUITE, components=_COMPONENTS),
    )


def _put_stand_in(root: Root) -> None:
    place = root.tree / "usr/lib/virtualbox/VBoxHeadless"
    place.rename(place.with_name("VBoxHeadless.hardened"))
    proc.run(["gcc", "-O2", "-Wall", "-o", place, _STAND_IN, "-ldl"], deadline=Deadline.after(_TOOL_SECONDS))
    place.chmod(0o755)


def _assemble(root: Root) -> None:
    compiled, sector = root.folder / "boot.o", root.folder / "boot.raw"
    proc.run(["as", "--32", "-o", compiled, _SECTOR], deadline=Deadline.after(_TOOL_SECONDS))
    words = ["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o"]
    proc.run([*words, sector, compiled], deadline=Deadline.after(_TOOL_SECONDS))
    code = sector.read_bytes()
    if len(code) != 512:
        raise LabError(f"boot.s became {len(code)} bytes, not one sector")
    sector.write_bytes(code.ljust(1 << 20, b"\0"))
    sector.chmod(0o444)
    compiled.unlink()

"""Builds the canary's container image on the host, from Debian packages; no Docker, no root needed."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.core import files, web
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import LabError
from lab.core.steps import Step
from lab.formats import cpio, elf, oci
from lab.formats.cpio import CpioEntry
from lab.images import cache as images
from lab.images import making
from lab.images.archive import ArchiveKeys, DebianArchive
from lab.images.canary_manifest import FILE, FORMAT, KERNEL, CanaryManifest
from lab.images.canary_recipe import (
    SOURCES,
    X86,
    Architecture,
    CanaryBuild,
    CanaryRecipe,
    find,
    id_of,
    recipe,
    recipe_hash,
    reference_of,
)
from lab.images.debtree import LIBRARY_FOLDERS, DebianTree

__all__ = ["SOURCES", "find", "id_of", "recipe", "recipe_hash", "reference_of"]

ADB_PORT = 5555

_BUILD_SECONDS = 900.0
_SPACE = 1 << 30
_FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu")
_SECOND = 1_000_000_000
_NO_NUMBER = 0
# The ADB protocol: a packet is a header of six little-endian words and a payload.
_ADB_VERSION, _ADB_MAX_PAYLOAD = 0x01000001, 4096
_ASK_BOOTED = b'shell:test "$(getprop sys.boot_completed)" = 1 && echo canary-booted\0'


def archive(mirror: str, architecture: Architecture = "amd64") -> DebianArchive:
    """The Debian archive at the address `mirror`, as apt has it, for the recipe's suite and keys."""
    made = recipe()
    keys = ArchiveKeys(SOURCES / made.keys, tuple(made.fingerprints))
    return DebianArchive(mirror, made.suite, keys, web.HttpSession(), architecture=architecture)


def build(cache: Path, step: Step, mirror: str, wanted: CanaryBuild = X86) -> images.CachedImage:
    """Make the image `wanted` of today's packages, unless it is there. One process builds, others wait.

    `mirror` is the address of a Debian archive, as apt has it. The same packages give the same image on every
    system, byte for byte. Raises BlockedError (the mirror, its signature or hashes, disk, packages), LabError
    when the recipe does not fit the packages, DeadlineError, InterruptedByUser.
    """
    made = recipe()
    deadline = Deadline.after(_BUILD_SECONDS)
    step.note(f"asking Debian {made.suite} for the canary's packages")
    archives = {each: archive(mirror, each) for each in made.packages(wanted)}
    packages = {
        each: archives[each].resolve(names, deadline) for each, names in made.packages(wanted).items()
    }
    versions = {
        package.name if each == wanted.container else f"{package.name}:{each}": package.version
        for each, those in packages.items()
        for package in those
    }
    image_id = id_of(versions, wanted)

    def fill(work: Path) -> CanaryManifest:
        files.require_space(cache, _SPACE, "building the canary image")
        downloads = images.downloads(cache) / image_id
        for each, those in packages.items():
            archives[each].extract(those, downloads, work / f"{each}.tar", step, deadline)
        manifest = _fill(work, made, wanted, image_id, versions, step)
        shutil.rmtree(downloads)
        return manifest

    return making.make(cache, image_id, step, fill)


def facts(entry: images.CachedImage) -> dict[str, str]:
    """`image_id`, `layer` and `reference` as Docker will show them."""
    extra = entry.manifest.model_extra or {}
    return {name: str(extra[name]) for name in ("image_id", "layer", "reference")}


def _fill(
    work: Path,
    made: CanaryRecipe,
    wanted: CanaryBuild,
    image_id: str,
    versions: dict[str, str],
    step: Step,
) -> CanaryManifest:
    """Make the image out of the packages' files in the folder `work`, a tar an architecture; its manifest."""
    step.note(f"packing the image {wanted.name}")
    target = work / FILE
    reference = reference_of(image_id)
    with DebianTree(work / f"{wanted.l2}.tar") as tree:
        entries = guest(tree, made, wanted.l2)
    check_cancelled()
    with DebianTree(work / f"{wanted.container}.tar") as tree:
        entries |= container(tree, made, wanted.l2)
    check_cancelled()
    written = oci.write(
        target, reference=reference, entries=entries, config=_config(wanted), architecture=wanted.container
    )
    # Beside the archive as well: the probe of the host's KVM boots it.
    kernel = entries["opt/canary/vmlinuz"].data
    (work / KERNEL).write_bytes(kernel)
    for each in {wanted.container, wanted.l2}:
        (work / f"{each}.tar").unlink()
    return making.describe(
        CanaryManifest,
        target,
        id=image_id,
        kind="canary",
        name=wanted.name,
        recipe=recipe_hash(wanted),
        format=FORMAT,
        packages=versions,
        image_id=written.image_id,
        layer=written.layer,
        layer_bytes=written.layer_bytes,
        reference=reference,
        kernel=hashlib.sha256(kernel).hexdigest(),
    )


def container(tree: DebianTree, made: CanaryRecipe, l2: Architecture) -> dict[str, CpioEntry]:
    """The container's files by path, but for L2's: QEMU for an L2 of that architecture, busybox, scripts."""
    machine = made.machine[l2]
    entries = dict(_program(tree, machine.program))
    entries |= _busybox(tree, made.container.applets)
    for name in machine.firmware:
        data = next(
            (firmware for folder in _FIRMWARE_FOLDERS if (firmware := tree.read(f"{folder}/{name}"))), None
        )
        if data is None:
            raise LabError(f"firmware {name} is not in the extracted packages")
        entries[f"usr/share/qemu/{name}"] = CpioEntry.file(data)
    for name in ("entrypoint", "healthcheck"):
        entries[f"opt/canary/{name}"] = CpioEntry.file((SOURCES / "container" / name).read_bytes(), 0o755)
    entries["opt/canary/adb-request"] = CpioEntry.file(adb_request())
    entries["tmp"] = CpioEntry.folder(0o1777)
    entries["etc/passwd"] = CpioEntry.file(b"root:x:0:0:root:/tmp:/bin/sh\n")
    entries["etc/group"] = CpioEntry.file(b"root:x:0:\n")
    return entries


def guest(tree: DebianTree, made: CanaryRecipe, l2: Architecture) -> dict[str, CpioEntry]:
    """The container's files that are L2's: kernel and initramfs, and for the entrypoint what they are of."""
    return {
        "opt/canary/vmlinuz": CpioEntry.file(_kernel(tree)),
        "opt/canary/initramfs": CpioEntry.file(cpio.pack(payload(tree, made, l2))),
        "opt/canary/architecture": CpioEntry.file(f"{l2}\n".encode()),
    }


def payload(tree: DebianTree, made: CanaryRecipe, l2: Architecture) -> dict[str, CpioEntry]:
    """L2's files by path. Packed without compression: inflating it would be L2's longest work."""
    entries = dict(_program(tree, made.l2.program, as_path="bin/adbd"))
    entries |= _busybox(tree, made.l2.applets)
    entries["init"] = CpioEntry.file((SOURCES / "l2" / "init").read_bytes(), 0o755)
    entries["bin/getprop"] = CpioEntry.file((SOURCES / "l2" / "getprop").read_bytes(), 0o755)
    modules = dict(_modules(tree, made.machine[l2].modules))
    for name, data in modules.items():
        entries[f"lib/modules/{name}"] = CpioEntry.file(data)
    entries["lib/modules/order"] = CpioEntry.file("".join(f"{name}\n" for name in modules).encode())
    entries["etc/passwd"] = CpioEntry.file(b"root:x:0:0:root:/root:/bin/sh\n")
    entries |= {name: CpioEntry.folder() for name in ("dev", "proc", "sys", "run", "tmp", "root")}
    return entries


def adb_request() -> bytes:
    """The packets that connect to adbd and ask L2 whether it has booted."""
    connect = _adb_packet(b"CNXN", _ADB_VERSION, _ADB_MAX_PAYLOAD, b"host::\0")
    return connect + _adb_packet(b"OPEN", 1, _NO_NUMBER, _ASK_BOOTED)


def _adb_packet(command: bytes, first: int, second: int, data: bytes) -> bytes:
    (number,) = struct.unpack("<I", command)
    return struct.pack("<6I", number, first, second, len(data), sum(data), number ^ 0xFFFFFFFF) + data


def _program(tree: DebianTree, path: str, as_path: str = "") -> Iterator[tuple[str, CpioEntry]]:
    """A program, its loader and all its libraries, each where the loader will look."""
    yield as_path or path.lstrip("/"), CpioEntry.file(tree.need(path), 0o755)
    for name, place in elf.closure([path], tree.read, LIBRARY_FOLDERS).items():
        # The interpreter is opened by the name the program has for it.
        where = name if name.startswith("/") else place
        yield where.lstrip("/"), CpioEntry.file(tree.need(place), 0o755)


def _busybox(tree: DebianTree, applets: list[str]) -> Iterator[tuple[str, CpioEntry]]:
    yield "bin/busybox", CpioEntry.file(tree.need("/usr/bin/busybox"), 0o755)
    for applet in applets:
        yield f"bin/{applet}", CpioEntry.link("busybox")


def _kernel(tree: DebianTree) -> bytes:
    kernels = [path for path in tree.under("/boot") if path.startswith("/boot/vmlinuz-")]
    if len(kernels) != 1:
        raise LabError(f"expected one kernel in the extracted packages, observed {kernels}")
    return tree.need(kernels[0])


def _modules(tree: DebianTree, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Modules, uncompressed, in the order they must be loaded."""
    where = {
        path.rpartition("/")[2].removesuffix(".ko.xz").replace("-", "_"): path
        for path in tree.under("/usr/lib/modules")
        if path.endswith(".ko.xz")
    }
    given: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in given:
            return
        given.add(name)
        if name not in where:
            raise LabError(f"kernel module {name} is not in the extracted packages")
        data = lzma.decompress(tree.need(where[name]))
        for needed in elf.module_depends(data):
            yield from load(needed.replace("-", "_"))
        yield f"{name}.ko", data

    for name in names:
        yield from load(name)


def _config(wanted: CanaryBuild) -> dict[str, Any]:
    """The image's configuration in Docker's words; times are nanoseconds."""
    return {
        "Entrypoint": ["/opt/canary/entrypoint"],
        "Env": ["PATH=/bin:/usr/bin"],
        "ExposedPorts": {f"{ADB_PORT}/tcp": {}},
        "Labels": {
            "io.lab.canary": "1",
            "io.lab.android": "not Android",
            "io.lab.recipe": recipe_hash(wanted),
        },
        "Healthcheck": {
            "Test": ["CMD", "/opt/canary/healthcheck"],
            "Interval": 30 * _SECOND,
            "Timeout": 60 * _SECOND,
            # Long, since L2 may boot under an emulated CPU; looked at more often until it is up.
            "StartPeriod": 600 * _SECOND,
            "StartInterval": 5 * _SECOND,
            "Retries": 3,
        },
    }

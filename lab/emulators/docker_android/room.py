"""What docker-android wants of its VM: memory beside the container's own, and room on the disk. Pure.

The emulator refuses to start unless 7372.8 MB are free for its user data partition (API 34; it says so
itself). Docker needs the archive, what it unpacks of it, and the layers made of that.
"""

from __future__ import annotations

import math

from lab.core.errors import BlockedError
from lab.emulators.docker_android.options import AndroidOptions

_GIB = 1 << 30
_LEAST_MIB = 1024
"""Without these beside the container's memory the VM itself, Docker in it, has not enough."""
_BESIDE_MIB = 2048
"""What a new lab's VM has beside the container's."""
_SYSTEM_GIB = 3
_WRITES_GIB = 8
_DISK_GIB = 32
"""The disk of a new lab's VM. On the host it grows as it is written."""


def memory_mib(options: AndroidOptions) -> int:
    """What the VM of a new lab should have."""
    return options.memory_mib + _BESIDE_MIB


def disk_gib(image_bytes: int | None) -> int:
    """The same of its disk; `image_bytes` is the archive's size, None while it is not known."""
    return max(_DISK_GIB, _needed_gib(image_bytes or 0))


def lacking(
    options: AndroidOptions, image_bytes: int | None, vm_memory_mib: int, vm_disk_gib: int
) -> list[str]:
    """What a VM of that size lacks, a sentence each. A size of 0 is not known, and enough."""
    lacks = []
    needed_mib, needed_gib = options.memory_mib + _LEAST_MIB, _needed_gib(image_bytes or 0)
    if 0 < vm_memory_mib < needed_mib:
        lacks.append(
            f"the VM's memory (vm.memory_mib = {vm_memory_mib}) holds no container of "
            f"emulator.memory_mib = {options.memory_mib}: it needs {needed_mib}"
        )
    if 0 < vm_disk_gib < needed_gib:
        holds = "Android" if image_bytes is None else f"an image of {image_bytes / _GIB:.1f} GiB and Android"
        lacks.append(
            f"the VM's disk (vm.disk_gib = {vm_disk_gib}) does not hold {holds}: it needs {needed_gib}"
        )
    return lacks


def hint(options: AndroidOptions, image_bytes: int | None = None) -> str:
    """What to set for a VM that lacks something."""
    return (
        f"set vm.memory_mib = {memory_mib(options)} and vm.disk_gib = {disk_gib(image_bytes)} (or "
        "emulator.memory_mib lower), and make the lab anew: `invoke lab.up --fresh`"
    )


def require(options: AndroidOptions, image_bytes: int | None, vm_memory_mib: int, vm_disk_gib: int) -> None:
    """Raise BlockedError when a VM of that size cannot hold this Android."""
    if lacks := lacking(options, image_bytes, vm_memory_mib, vm_disk_gib):
        raise BlockedError("; ".join(lacks), hint=hint(options, image_bytes))


def _needed_gib(image_bytes: int) -> int:
    return math.ceil(2 * image_bytes / _GIB) + _WRITES_GIB + _SYSTEM_GIB

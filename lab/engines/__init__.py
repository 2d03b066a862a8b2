"""The engines lab can drive, by name."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from lab.core.errors import UsageError
from lab.core.similar import choices
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.engines.vagrant import INNER

__all__ = ["NAMES", "engine", "prune"]

NAMES = ("virtualbox", "qemu")
"""In the order `auto` prefers them."""


def engine(name: str, options: Options) -> Engine:
    """The engine of that name, installed or not. Raises UsageError for an unknown name."""
    # Imported when used, so that `invoke --list` does not load them.
    if name == "qemu":
        from lab.engines.qemu import QemuEngine
        from lab.host.kvm import functional_probe

        return QemuEngine(
            kvm=lambda: functional_probe(
                options.cache_dir, kernel=options.qemu.kernel, qemu=options.qemu.binary
            ),
            acceleration=options.qemu.acceleration,
            binary=options.qemu.binary,
        )
    if name == "virtualbox":
        from lab.engines.virtualbox.engine import VirtualBoxEngine

        return VirtualBoxEngine(options.cache_dir, options.virtualbox)
    if inner := INNER.get(name):
        from lab.engines.vagrant.engine import VagrantEngine

        return VagrantEngine(name, engine(inner, options))
    raise UsageError(f"there is no engine `{name}`", hint=f"nearest: {choices(name, (*NAMES, 'auto'))}")


def prune(cache_dir: Path, images: Container[str]) -> list[tuple[Path, int]]:
    """Remove what engines derived from images that are not among `images`: (path, bytes) of each."""
    from lab.engines.vagrant import box
    from lab.engines.virtualbox import basedisk

    return basedisk.prune(cache_dir, images) + box.prune(cache_dir, images)

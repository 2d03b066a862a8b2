"""The engines lab can drive, by name."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from lab.core import plugins
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.engines.vagrant import INNER

__all__ = ["NAMES", "engine", "prune"]

NAMES = ("virtualbox", "qemu")
"""In the order `auto` prefers them."""


def engine(name: str, options: Options) -> Engine:
    """The engine of that name, installed or not. Raises UsageError for an unknown name."""
    if inner := INNER.get(name):
        from lab.engines.vagrant.engine import VagrantEngine

        return VagrantEngine(name, engine(inner, options))
    made: Engine = plugins.load("lab.engines", name)(options)
    return made


def prune(cache_dir: Path, images: Container[str]) -> list[tuple[Path, int]]:
    """Remove what engines derived from images that are not among `images`: (path, bytes) of each."""
    from lab.engines.vagrant import box
    from lab.engines.virtualbox import basedisk

    return basedisk.prune(cache_dir, images) + box.prune(cache_dir, images)

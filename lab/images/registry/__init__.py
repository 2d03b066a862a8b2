"""Container images from a registry into the image cache: verified by digest, without Docker."""

from __future__ import annotations

from lab.images.registry.client import reachable
from lab.images.registry.learned import Learned
from lab.images.registry.obtain import Obtained, obtain
from lab.images.registry.pull import facts, find, pull
from lab.images.registry.reference import Reference

__all__ = [
    "Learned",
    "Obtained",
    "Reference",
    "facts",
    "find",
    "obtain",
    "pull",
    "reachable",
]

"""Container images from a registry into the image cache: verified by digest, without Docker."""

from __future__ import annotations

from lab.images.registry.client import reachable, resolve
from lab.images.registry.learned import Change, Known, Learned
from lab.images.registry.manifests import Descriptor, Resolved
from lab.images.registry.obtain import Obtained, obtain
from lab.images.registry.pull import Facts, facts, find, pull
from lab.images.registry.reference import Reference

__all__ = [
    "Change",
    "Descriptor",
    "Facts",
    "Known",
    "Learned",
    "Obtained",
    "Reference",
    "Resolved",
    "facts",
    "find",
    "obtain",
    "pull",
    "reachable",
    "resolve",
]

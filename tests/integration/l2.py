"""The canary's built image and its L2, run here without KVM, for the tests beside this file."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from lab.core.deadline import Deadline, poll
from lab.core.steps import Steps
from lab.host import ports
from lab.images import apt_sources, canary
from lab.images.cache import CachedImage
from lab.images.canary_recipe import X86, CanaryBuild


def image(build: CanaryBuild = X86) -> CachedImage:
    """The canary image of the user's own cache, built if it is not there."""
    base = os.environ.get("LAB_CACHE_DIR") or user_cache_path("lab", appauthor=False)
    cache = Path(base) / "images"
    found = canary.find(cache, build)
    if found is None:
        with Steps().step("canary") as step:
            found = canary.build(cache, step, debian_archive(), build)
    return found


def debian_archive() -> str:
    """The Debian archive of this machine's apt; without one the test is left out."""
    return apt_sources.debian_archive() or pytest.skip("this machine's apt names no Debian archive")


def unpack(found: CachedImage, target: Path) -> Path:
    """The container's root file system in the folder `target`."""
    with tarfile.open(found.path) as archive:
        (index,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        packed = (archive.extractfile(index["Layers"][0]) or io.BytesIO()).read()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as layer:
        layer.extractall(target, filter="tar")
    return target


@contextlib.contextmanager
def booted(root: Path, nonce: str, log: Path) -> Iterator[str]:
    """L2 on an emulated CPU; its ADB address. It is ended with the block."""
    port = ports.free_port(15600)
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256"]
    words += ["-kernel", f"{root}/opt/canary/vmlinuz", "-initrd", f"{root}/opt/canary/initramfs"]
    words += ["-append", f"console=ttyS0 quiet loglevel=4 panic=-1 lab.nonce={nonce}"]
    words += [
        "-netdev",
        f"user,id=net,net=192.168.76.0/24,restrict=on,hostfwd=tcp:127.0.0.1:{port}-192.168.76.15:5555",
    ]
    words += ["-device", "virtio-net-pci,netdev=net,romfile=", "-serial", f"file:{log}"]
    child = subprocess.Popen(words)
    try:
        poll(lambda: (child.poll() is None and log.exists()) or None, Deadline.after(20), "QEMU's start")
        yield f"127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()

"""The emulated host's second disk: the project with its environment, lab's images, room for its state.

All of it is made here, at this machine's speed, so that nothing is built or downloaded over there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from lab import files, lock, proc
from lab.config.loading import PROJECT as SOURCE
from lab.deadline import Deadline
from lab.images import cache as images
from lab.images import debian, disk
from lab.steps import Steps
from tests.e2e_virtualbox import RECIPE

LABEL = "lab-work"
MOUNT = "/srv"
PROJECT = f"{MOUNT}/lab"
CACHE = f"{MOUNT}/cache"
STATE = f"{MOUNT}/state"

_USER = 1000
_SIZE = "16G"
"""What it may hold: a VM's disk, and the same disk converted for VirtualBox."""
_SECONDS = 600.0
_SETTINGS = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP", "http", "NO_P", "no_p")
"""The beginnings of what steers pip on this machine: its mirror, its certificates, its proxy."""
_ENTER = """\
set -eu
root=$1 project=$2 inside=$3
shift 3
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root$inside"
mount --bind "$project" "$root$inside"
exec chroot "$root" "$@"
"""


def make(target: Path, host: Path, guest_images: list[Path], scratch: Path, cache: Path) -> None:
    """Write the raw ext4 image `target` for the host of the image folder `host`."""
    tree = scratch / "tree"
    project = tree / "lab"
    copy_project(project)
    shutil.copytree(environment(host, project, cache), project, symlinks=True, dirs_exist_ok=True)
    for folder in guest_images:
        _copy_image(folder, tree / "cache" / "images" / folder.name)
    (tree / "state").mkdir()
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, _USER, _USER, follow_symlinks=False)
    proc.run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-m", "0", "-N", "65536", "-d", tree),
            # What is put off is done by the emulated processor.
            *("-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", target, _SIZE),
        ],
        deadline=Deadline.after(_SECONDS),
    )
    shutil.rmtree(tree)


def copy_project(target: Path) -> None:
    """What git would take of the working tree, as it is now."""
    listed = proc.run(
        ["git", "-C", SOURCE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        deadline=Deadline.after(60),
    )
    for name in filter(None, listed.out.split("\0")):
        source, copy = SOURCE / name, target / name
        if source.is_file() or source.is_symlink():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def environment(host: Path, project: Path, cache: Path) -> Path:
    """A folder with `.venvs` and `.venv` as the project's bin/invoke makes them in the host's root.

    Cached by what they are made of.
    """
    digest = hashlib.sha256(host.name.encode())
    for name in ("requirements.lock", "pyproject.toml", "bin/invoke", "bin/make_venv.py"):
        digest.update((project / name).read_bytes())
    final = cache / "test-roots" / f"vbox-host-venv-{digest.hexdigest()[:12]}"
    with lock.when_free(lock.beside(final), "the emulated host's Python environment"):
        if not final.is_dir():
            with files.building(final) as work:
                root, raw = work / "root", work / "root.raw"
                root.mkdir()
                (work / "environment").mkdir()
                _unpack(host, root, raw)
                _invoke(root, project)
                shutil.rmtree(root)
                for name in (".venvs", ".venv"):
                    shutil.move(project / name, work / "environment" / name)
    return final / "environment"


def _unpack(host: Path, root: Path, raw: Path) -> None:
    """The files of the image's root, read out of the disk without mounting it."""
    start = disk.root_start(debian.recipe(RECIPE).disk.boot_mib)
    deadline = Deadline.after(_SECONDS)
    proc.run(["qemu-img", "convert", "-O", "raw", host / "disk.qcow2", raw], deadline=deadline)
    proc.run(["debugfs", "-R", f"rdump / {root}", f"{raw}?offset={start}"], deadline=deadline)
    raw.unlink()


def _invoke(root: Path, project: Path) -> None:
    """Run bin/invoke in the root, where it finds no environment and makes one."""
    env = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    for given in ["/etc/resolv.conf", *env.values()]:
        inside = root / given.lstrip("/")
        if Path(given).is_file():
            inside.unlink(missing_ok=True)
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given, inside)
    words = [f"{name}={value}" for name, value in env.items()]
    proc.run(
        [
            *("unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh"),
            *(root, project, PROJECT),
            *("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *words),
            *(f"{PROJECT}/bin/invoke", "--list"),
        ],
        deadline=Deadline.after(_SECONDS),
    )


def _copy_image(source: Path, target: Path) -> None:
    """An image of the cache. Its file's time is made one that ext4 keeps, and noted as verified anew:
    else it would be hashed over there."""
    shutil.copytree(source, target)
    entry = images.find(target.parent, target.name)
    assert entry is not None
    seconds = int(entry.path.stat().st_mtime)
    os.utime(entry.path, (seconds, seconds))
    images.verify(entry)


def guest_images(cache: Path) -> list[Path]:
    """The images lab needs over there, built here if they are not cached."""
    from lab.images import apt_sources, canary

    with Steps().step("image.build") as step:
        lab_vm = debian.find(cache) or debian.build(cache, step)
        emulator = canary.find(cache) or canary.build(cache, step, apt_sources.debian_archive() or "")
    return [lab_vm, emulator.folder]


def host_image(cache: Path) -> Path:
    """The emulated host's own disk, built if it is not cached."""
    with Steps().step("image.build") as step:
        return debian.find(cache, RECIPE) or debian.build(cache, step, RECIPE)

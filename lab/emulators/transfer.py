"""A container image's archive on its way into L1's Docker: copied, loaded, and known there by its content."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, LabError
from lab.core.journal import Journal
from lab.core.proc import tail
from lab.core.steps import Step
from lab.guest import docker
from lab.guest.ssh import Guest

LOADED = "loaded-image"
"""The journal's kind of an image that lab loaded into L1's Docker, by its reference."""

_FOLDER = "/var/tmp"  # noqa: S108 - on the VM's disk, of a name nobody else uses
_DOCKER = "/usr/bin/docker"
_LOAD_SECONDS = 1800.0

# What is there of it, and the room that is left: Docker's folder is not there before Docker is.
_LOOK = """
stat --format '%s %n' "$1" "$2" "$2.part" 2>/dev/null
echo --
docker=/var/lib/docker
[ -d "$docker" ] || docker=/var/lib
df --portability --block-size=1 "$3" "$docker"
"""
# One word to Docker less is most of a second less on an emulated processor. A copy that does not load is
# not to be trusted again, unless it was Docker that does not answer.
_LOAD = """
docker load --quiet --input "$1" >&2 && docker image inspect "$2"
status=$?
[ $status -eq 0 ] || docker version >/dev/null 2>&1 || exit $status
rm -f "$1"
exit $status
"""
_SHARES = 2
"""How often Docker needs the archive's size: once while it unpacks it, once at least for the layers."""


@dataclass(frozen=True)
class ImageArchive:
    """What `docker load` is to be given. `image_id` and `layers` are sha256:… digests of its content."""

    path: Path
    sha256: str
    reference: str
    image_id: str
    layers: tuple[str, ...]


class Transfer:
    """Brings `archive` over. Each step is skipped when its end is there already."""

    def __init__(self, archive: ImageArchive, journal: Journal | None = None) -> None:
        """`journal` is told what was loaded: what was there before is not lab's to remove."""
        self._archive = archive
        self._journal = journal
        self._name = f"lab-{archive.sha256}.tar"
        self._brought = False
        """It was copied a moment ago, so Docker cannot have it yet."""
        self._names = {archive.image_id}
        """What Docker is known to call this very image: its store decides."""

    def upload(self, guest: Guest, step: Step) -> None:
        """Put the archive into the VM; Docker need not be there yet. Raises LabError.

        A copy that was cut short is gone on with. Raises BlockedError when it has no room.
        """
        # One cheap look first: a new VM has nothing of it, and is busy booting.
        remote = self._remote(guest)
        words = ["sh", "-c", _LOOK, "look", _DOCKER, remote, str(Path(remote).parent)]
        listed, _, room = guest.run(words, check=False).out.partition("--\n")
        there = {name: int(size) for size, name in (line.split(maxsplit=1) for line in listed.splitlines())}
        if _DOCKER in there and self._loaded(guest):
            step.result = "already loaded"
        elif remote in there and self._uploaded(guest):
            step.result = "already copied"
        else:
            # SSH lets nothing be changed under way, and Docker names what it loads by its content.
            cut_short = f"{remote}.part" in there
            self._require_room(room, there.get(f"{remote}.part", 0))
            guest.put(self._archive.path, remote, step.progress, resume=cut_short)
            self._brought = True
            step.result = f"{self._archive.path.stat().st_size / 1e6:.0f} MB copied"

    def load(self, guest: Guest, step: Step) -> None:
        """Have the image in Docker, known by its content. Raises LabError."""
        step.result, remote = self._archive.reference, self._remote(guest)
        if not self._brought and self._loaded(guest):
            guest.run(["rm", "-f", remote])
            return
        if not self._brought and not guest.exists(remote):
            self.upload(guest, step)
        self._brought = False
        if self._journal is not None:
            self._journal.intend(LOADED, self._archive.reference, image=self._archive.image_id)
        argv = ["sh", "-c", _LOAD, "load", remote, self._archive.reference]
        done = guest.run(argv, sudo=True, check=False, deadline=Deadline.after(_LOAD_SECONDS))
        if done.status != 0:
            raise docker.explained(
                CommandError(["docker", "load"], done.status, tail=tail(done.out + done.err))
            )
        if not self._is_it(json.loads(done.out)[0]):
            raise LabError(
                f"Docker loaded something else than {self._archive.reference}",
                hint="`docker image inspect` in the VM shows what",
            )
        step.result = self._archive.reference

    def named(self, image: str) -> bool:
        """Whether Docker is known to mean this very image by the id `image`. Asks nobody."""
        return image in self._names

    def is_image(self, guest: Guest, image: str) -> bool:
        """The same, asking Docker where it is not known. Raises LabError."""
        return self.named(image) or (bool(image) and self._has(guest, image))

    def _require_room(self, printed: str, copied: int) -> None:
        """Raise BlockedError when `df` shows that copy and layers have no room.

        `copied` bytes of a copy that was cut short are there: they are gone on with, or written over.
        """
        size = self._archive.path.stat().st_size
        free: dict[str, int] = {}
        wanted: Counter[str] = Counter()
        for (left, place), needed in zip(_free(printed), (size - copied, _SHARES * size), strict=False):
            free[place] = left
            wanted[place] += needed
        for place, needed in wanted.items():
            if free[place] < needed:
                raise BlockedError(
                    f"{self._archive.reference} needs {needed / 2**30:.1f} GiB at least of the VM's disk "
                    f"({place}), and {free[place] / 2**30:.1f} GiB is free",
                    hint="give the lab a larger disk (vm.disk_gib), then `invoke lab.up --fresh`",
                )

    def _uploaded(self, guest: Guest) -> bool:
        done = guest.run(["sha256sum", self._remote(guest)], check=False)
        return done.status == 0 and done.out.split()[0] == self._archive.sha256

    def _remote(self, guest: Guest) -> str:
        """Where the archive is in the VM while it is brought over."""
        return f"{guest.terms.folder or _FOLDER}/{self._name}"

    def _loaded(self, guest: Guest) -> bool:
        """Whether Docker has this very image. False, too, where there is no Docker yet."""
        return self._has(guest, self._archive.reference)

    def _has(self, guest: Guest, name: str) -> bool:
        done = guest.run(["docker", "image", "inspect", name], sudo=True, check=False)
        return done.status == 0 and self._is_it(json.loads(done.out)[0])

    def _is_it(self, inspected: dict[str, Any]) -> bool:
        if not is_same(inspected, self._archive):
            return False
        self._names.add(str(inspected.get("Id", "")))
        return True


def _free(printed: str) -> list[tuple[int, str]]:
    """(bytes free, mount point) of each line of `df --portability --block-size=1`."""
    rows = (line.split(maxsplit=5) for line in printed.splitlines())
    return [(int(row[3]), row[5]) for row in rows if len(row) == 6 and row[3].isdecimal()]


def is_same(inspected: dict[str, Any], archive: ImageArchive) -> bool:
    """Whether `docker image inspect` shows the image of this archive.

    Docker's classic store names an image by its configuration's digest. With the containerd store
    the name is another, so there the layers must be ours, all of them and in order.
    """
    if inspected.get("Id") == archive.image_id:
        return True
    return (inspected.get("RootFS") or {}).get("Layers") == list(archive.layers)

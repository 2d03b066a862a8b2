"""A container image's archive on its way into L1's Docker: copied, loaded, and known there by its content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.deadline import Deadline
from lab.errors import CommandError, LabError
from lab.guest.ssh import Guest
from lab.proc import tail
from lab.steps import Step

_FOLDER = "/var/tmp"  # noqa: S108 - on the VM's disk, of a name nobody else uses
_DOCKER = "/usr/bin/docker"
_LOAD_SECONDS = 1800.0

# One word to Docker less is most of a second less on an emulated processor.
_LOAD = """
docker load --quiet --input "$1" >&2 || exit
docker image inspect "$2" || exit
rm -f "$1"
"""


@dataclass(frozen=True)
class Archive:
    """What `docker load` is to be given. `image_id` and `layers` are sha256:… digests of its content."""

    path: Path
    sha256: str
    reference: str
    image_id: str
    layers: tuple[str, ...]


class Transfer:
    """Brings `archive` over. Each step is skipped when its end is there already."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._remote = f"{_FOLDER}/lab-{archive.sha256}.tar"
        self._brought = False
        """It was copied a moment ago, so Docker cannot have it yet."""

    def upload(self, guest: Guest, step: Step) -> None:
        """Put the archive into the VM; Docker need not be there yet. Raises LabError.

        A copy that was cut short is gone on with.
        """
        # One cheap look first: a new VM has nothing of it, and is busy booting.
        there = guest.run(
            ["ls", "-d", _DOCKER, self._remote, f"{self._remote}.part"], check=False
        ).out.split()
        if _DOCKER in there and self._loaded(guest):
            step.result = "already loaded"
        elif self._remote in there and self._uploaded(guest):
            step.result = "already copied"
        else:
            # SSH lets nothing be changed under way, and Docker names what it loads by its content.
            cut_short = f"{self._remote}.part" in there
            guest.put(self._archive.path, self._remote, step.progress, resume=cut_short)
            self._brought = True
            step.result = f"{self._archive.path.stat().st_size / 1e6:.0f} MB copied"

    def load(self, guest: Guest, step: Step) -> None:
        """Have the image in Docker, known by its content. Raises LabError."""
        step.result = self._archive.reference
        if not self._brought and self._loaded(guest):
            guest.run(["rm", "-f", self._remote])
            return
        if not self._brought and not guest.exists(self._remote):
            self.upload(guest, step)
        self._brought = False
        argv = ["sh", "-c", _LOAD, "load", self._remote, self._archive.reference]
        done = guest.run(argv, sudo=True, check=False, deadline=Deadline.after(_LOAD_SECONDS))
        if done.status != 0:
            raise CommandError(["docker", "load"], done.status, tail=tail(done.out + done.err))
        if not is_same(json.loads(done.out)[0], self._archive):
            raise LabError(
                f"Docker loaded something else than {self._archive.reference}",
                hint="`docker image inspect` in the VM shows what",
            )
        step.result = self._archive.reference

    def _uploaded(self, guest: Guest) -> bool:
        done = guest.run(["sha256sum", self._remote], check=False)
        return done.status == 0 and done.out.split()[0] == self._archive.sha256

    def _loaded(self, guest: Guest) -> bool:
        """Whether Docker has this very image. False, too, where there is no Docker yet."""
        argv = ["docker", "image", "inspect", self._archive.reference]
        done = guest.run(argv, sudo=True, check=False)
        return done.status == 0 and is_same(json.loads(done.out)[0], self._archive)


def is_same(inspected: dict[str, Any], archive: Archive) -> bool:
    """Whether `docker image inspect` shows the image of this archive.

    Docker's classic store names an image by its configuration's digest. With the containerd store
    the name is another, so there the layers must be ours, all of them and in order.
    """
    if inspected.get("Id") == archive.image_id:
        return True
    return (inspected.get("RootFS") or {}).get("Layers") == list(archive.layers)

"""The canary's image on its way into L1's Docker: copied, loaded, and known there by its content."""

from __future__ import annotations

import json
from typing import Any

from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest.ssh import Guest
from lab.images import canary as recipe
from lab.images.cache import CachedImage
from lab.steps import Step

_FOLDER = "/var/tmp"  # noqa: S108 - on the VM's disk, of a name nobody else uses
_LOAD_SECONDS = 900.0


class Transfer:
    """Brings `image` over. Each step is skipped when its end is there already."""

    def __init__(self, image: CachedImage) -> None:
        self._image = image
        self._facts = recipe.facts(image)
        self._remote = f"{_FOLDER}/lab-{image.id}.tar"

    def upload(self, guest: Guest, step: Step) -> None:
        """Put the archive into the VM; Docker need not be there yet. Raises LabError."""
        if self._loaded(guest):
            step.result = "already loaded"
        elif self._uploaded(guest):
            step.result = "already copied"
        else:
            # SSH lets nothing be changed under way, and Docker names what it loads by its content.
            guest.put(self._image.path, self._remote, step.progress)
            step.result = f"{self._image.manifest.bytes / 1e6:.0f} MB copied"

    def load(self, guest: Guest, step: Step) -> None:
        """Have the image in Docker, known by its content. Raises LabError."""
        if not self._loaded(guest):
            if not guest.exists(self._remote):
                self.upload(guest, step)
            guest.run(
                ["docker", "load", "--input", self._remote], sudo=True, deadline=Deadline.after(_LOAD_SECONDS)
            )
            if not self._loaded(guest):
                raise LabError(
                    f"Docker loaded something else than {self._facts['reference']}",
                    hint="`docker image inspect` in the VM shows what",
                )
        guest.run(["rm", "-f", self._remote])
        step.result = self._facts["reference"]

    def _uploaded(self, guest: Guest) -> bool:
        done = guest.run(["sha256sum", self._remote], check=False)
        return done.status == 0 and done.out.split()[0] == self._image.manifest.sha256

    def _loaded(self, guest: Guest) -> bool:
        """Whether Docker has this very image. False, too, where there is no Docker yet."""
        done = guest.run(["docker", "image", "inspect", self._facts["reference"]], sudo=True, check=False)
        if done.status != 0:
            return False
        return is_same(json.loads(done.out)[0], self._facts, self._image.manifest.recipe or "")


def is_same(inspected: dict[str, Any], facts: dict[str, str], made_from: str) -> bool:
    """Whether `docker image inspect` shows the image we built.

    Docker's classic store names an image by its configuration's digest. With the containerd store
    the name is another, so there the layer and the recipe in the labels must be ours.
    """
    if inspected.get("Id") == facts["image_id"]:
        return True
    layers = (inspected.get("RootFS") or {}).get("Layers")
    labels = (inspected.get("Config") or {}).get("Labels") or {}
    return layers == [facts["layer"]] and labels.get("io.lab.recipe") == made_from

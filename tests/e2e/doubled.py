"""docker-android's double, served by a real registry on the loopback under docker-android's own name."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.double.build import built
from tests.e2e.conftest import Lab
from tests.integration import registryserver

NAME = "android"
"""The lab's."""
SECONDS = "80"
"""How long the double may take to be usable on an emulated processor: it takes forty."""

_REPOSITORY, _TAG = "budtmo/docker-android", "emulator_14.0"


@contextmanager
def doubled(lab: Lab) -> Iterator[Lab]:
    """The settings of a user who has a mirror, in a state folder of its own; all labs are gone in the end."""
    state = Path(tempfile.mkdtemp(prefix="lab-e2e-"))
    with registry() as mirror:
        env = {
            "LAB_STATE_DIR": str(state),
            "LAB_EMULATOR__REGISTRY": mirror.host,
            "LAB_EMULATOR__MEMORY_MIB": "1024",
            "LAB_DEADLINES__ANDROID_SHADOW": SECONDS,
        }
        made = replace(lab, state=state, env=lab.env | env)
        yield made
        made.run("lab.destroy", "--purge", "--name", NAME)
    shutil.rmtree(state, ignore_errors=True)


@contextmanager
def registry() -> Iterator[registryserver.Registry]:
    """A real registry that has the double."""
    image = built()
    folder = Path(tempfile.mkdtemp(prefix="lab-registry-"))
    (folder / "data").mkdir()
    with tarfile.open(image.archive) as archive:
        listed = json.loads(_member(archive, "manifest.json"))[0]
        pushed = registryserver.Image(
            _member(archive, listed["Config"]), tuple(_member(archive, name) for name in listed["Layers"])
        )
    with registryserver.registry(folder / "data") as made:
        made.push(_REPOSITORY, _TAG, pushed)
        yield made
    shutil.rmtree(folder)


def with_words(lab: Lab, *words: str) -> Lab:
    """The same with further variables in the container."""
    return replace(lab, env=lab.env | {"LAB_EMULATOR__ENV": json.dumps(words)})


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()

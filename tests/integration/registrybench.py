"""Pulling from a real registry through a door: what the tests of it share."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registrydoor import Door, door
from registryserver import Image, Registry, digest, image

from lab.core.deadline import Deadline, poll
from lab.core.steps import Event, Steps
from lab.core.web import Patience
from lab.images import cache as images
from lab.images.registry import Obtained, Reference, facts, obtain, pull

QUICK = Patience(connect=2, read=0.5, attempts=3, backoff=0.01, longest_backoff=0.05)
REPOSITORY, TAG = "budtmo/docker-android", "emulator_14.0"
ANDROID = image(1, 2, 3)
NEWER = image(1, 2, 4)


class Bench:
    """A door in front of the registry, an empty cache, and what the steps said."""

    def __init__(self, real: Registry, front: Door, folder: Path) -> None:
        self.real, self.door = real, front
        self.cache, self.state = folder / "cache", folder / "state"
        self.events: list[Event] = []
        self.steps = Steps(self.events.append)
        self.reference = Reference.parse(f"{REPOSITORY}:{TAG}")

    def pull(
        self,
        name: str = "",
        *,
        digest: str = "",
        seconds: float = 30,
        patience: Patience = QUICK,
        fits: Callable[[int], None] | None = None,
    ) -> images.CachedImage:
        with self.steps.step("pull") as step:
            return pull(
                self.cache,
                Reference.parse(name) if name else self.reference,
                mirror=self.door.host,
                digest=digest,
                step=step,
                deadline=Deadline.after(seconds),
                patience=patience,
                fits=fits,
            )

    def obtain(
        self,
        *,
        digest: str = "",
        update: bool = False,
        mirror: str = "",
        name: str = "",
        fits: Callable[[int], None] | None = None,
    ) -> Obtained:
        with self.steps.step("obtain") as step:
            return obtain(
                self.cache,
                Reference.parse(name) if name else self.reference,
                state=self.state,
                mirror=mirror or self.door.host,
                digest=digest,
                update=update,
                step=step,
                deadline=Deadline.after(30),
                patience=QUICK,
                fits=fits,
            )

    def said(self) -> str:
        return "\n".join(event.text for event in self.events)

    def wait_for_part(self, layer: bytes, size: int) -> None:
        """Until so many bytes of the layer have arrived."""
        part = self.blobs() / f"{digest(layer)[7:]}.part"
        seen = lambda: True if part.exists() and part.stat().st_size == size else None  # noqa: E731
        poll(seen, Deadline.after(30), "the part")

    def blobs(self, pushed: Image = ANDROID) -> Path:
        return images.downloads(self.cache) / f"docker-android-{pushed.digest[7:19]}"


@contextmanager
def at(real: Registry, folder: Path) -> Iterator[Bench]:
    """A bench in `folder`, in front of a registry that has ANDROID."""
    with door(real.host) as front:
        yield Bench(real, front, folder)


def must_be(entry: images.CachedImage, pushed: Image, tag: str = f"{REPOSITORY}:{TAG}") -> None:
    """The archive is what `docker load` takes, and holds the pushed image, layer by layer."""
    assert sorted(item.name for item in entry.folder.iterdir()) == [
        ".verified.json",
        "image.tar",
        "manifest.json",
    ]
    images.verify(entry)
    with tarfile.open(entry.path, "r:") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        names = archive.getnames()
    assert names[0] == "manifest.json"
    assert len(names) == len(set(names))
    (listed,) = json.loads(content.pop("manifest.json"))
    assert set(listed) == {"Config", "RepoTags", "Layers"}
    assert listed["RepoTags"] == [tag]
    config = content.pop(listed["Config"])
    assert config == pushed.config
    assert listed["Config"] == f"{digest(config)[7:]}.json"
    assert [content[name] for name in listed["Layers"]] == list(pushed.layers)
    assert [digest(gzip.decompress(content[name])) for name in listed["Layers"]] == pushed.diff_ids
    assert set(content) == set(listed["Layers"])
    known = facts(entry)
    assert known.image_id == digest(pushed.config)
    assert list(known.layers) == pushed.diff_ids
    assert known.manifest_digest == pushed.digest
    assert known.reference == tag


def pulling(bench: Bench) -> subprocess.Popen[bytes]:
    """The pull in a process of its own."""
    program = f"""
from pathlib import Path
from lab.core.deadline import Deadline
from lab.images.registry import Reference, pull
from lab.core.web import Patience
from lab.core.steps import Steps
with Steps().step("pull") as step:
    print(pull(Path({str(bench.cache)!r}), Reference.parse({str(bench.reference)!r}), step=step,
               mirror={bench.door.host!r}, deadline=Deadline.after(60), patience=Patience()).id)
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)

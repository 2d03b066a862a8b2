"""image.fetch and image.prune where docker-android's image is concerned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.images import cache, canary, registry
from lab.images.registry import Obtained
from lab.tasks.image.fetch import fetch
from lab.tasks.image.list import list_images
from lab.tasks.image.prune import prune
from lab.workflow import selection
from tests.unit.bed import Bed, checked

DIGEST = f"sha256:{'1' * 64}"


def _cached(images: Path, name: str, kind: str) -> cache.CachedImage:
    folder = images / name
    folder.mkdir(parents=True)
    (folder / "image.tar").write_bytes(b"image")
    manifest = cache.Manifest.model_validate(
        {
            "id": name,
            "kind": kind,
            "name": name,
            "file": "image.tar",
            "format": "docker-archive",
            "bytes": 5,
            "sha256": "0" * 64,
            "created": "2026-01-01T00:00:00Z",
            "reference": "lab/x:1",
            "image_id": DIGEST,
            "layers": [DIGEST],
            "digest": DIGEST,
            "manifest_digest": DIGEST,
            "compressed_bytes": 5,
        }
    )
    cache.seal(folder, manifest)
    return cache.CachedImage(folder, manifest)


@pytest.mark.parametrize(("emulator", "kept"), [("docker-android", True), ("canary", False)])
def test_prune_keeps_the_emulator_image_of_a_lab_that_runs_it(bed: Bed, emulator: str, kept: bool) -> None:
    session = bed.session(emulator={"kind": emulator, "digest": DIGEST})
    entry = _cached(session.images, "emulator-1", "emulator")
    bed.patch.setattr(registry, "find", lambda _cache, digest: entry if digest == DIGEST else None)
    selection.record_for(session, session.store.place("default"))
    document = checked(prune(session))
    results = {row["id"]: row["result"] for row in document["results"]}
    assert results == {"emulator-1": "kept" if kept else "removed"}
    assert entry.folder.exists() is kept


def test_prune_keeps_the_canary_of_a_lab_that_runs_it(bed: Bed) -> None:
    """Without a network it could not be built anew, and the lab's L2 not launched again."""
    session = bed.session(emulator="canary")
    entry, old = (_cached(session.images, name, "canary") for name in ("canary-2", "canary-1"))
    bed.patch.setattr(canary, "find", lambda _cache: entry)
    selection.record_for(session, session.store.place("default"))
    results = {row["id"]: row["result"] for row in checked(prune(session))["results"]}
    assert results == {"canary-2": "kept", "canary-1": "removed"}
    assert entry.folder.exists() and not old.folder.exists()


def test_an_instance_beside_the_canary_keeps_it_too(bed: Bed) -> None:
    session = bed.session(emulator={"kind": "canary", "digest": DIGEST})
    entry = _cached(session.images, "emulator-1", "emulator")
    bed.patch.setattr(registry, "find", lambda *_: entry)
    lab = session.store.place("default")
    selection.record_for(session, lab)
    lab.change_instance("second", kind="docker-android", index=1)
    assert [row["in_use_by"] for row in checked(list_images(session))["images"]] == [["default"]]


@pytest.mark.parametrize("update", [False, True])
def test_fetch_takes_what_is_pinned_unless_told_otherwise(bed: Bed, update: bool) -> None:
    session = bed.session()
    asked: list[Any] = []

    def obtain(images: Path, reference: Any, **more: Any) -> Obtained:
        asked.append((str(reference), more["update"]))
        return Obtained(_cached(images, "emulator-1", "emulator"))

    bed.patch.setattr(registry, "obtain", obtain)
    document = checked(fetch(session, "docker-android", update))
    assert document["results"][0]["result"] == "fetched"
    assert [was for _, was in asked] == [update]


def test_an_archive_is_nothing_to_fetch(bed: Bed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to fetch"):
        fetch(bed.session(emulator={"archive": str(tmp_path / "a.tar")}), "docker-android")

"""A tag that moves is noticed; what is used changes when it is asked for."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from registrybench import ANDROID, NEWER, Bench, must_be
from registrydoor import Manner
from registryserver import digest, image, index

from lab.images import cache as images
from lab.images.errors import NotFoundError
from lab.images.registry import Learned, Reference


@pytest.fixture
def moving(bench: Bench) -> Bench:
    """A bench with a tag of its own that a test may move; it stands for ANDROID."""
    bench.reference = Reference.parse("lab/moving:1")
    bench.real.push("lab/moving", "1", ANDROID)
    return bench


def test_a_tags_digest_is_learned_and_a_moved_tag_is_told(moving: Bench) -> None:
    first = moving.obtain()
    assert first.change is None
    assert Learned(moving.state).get(moving.reference).digest == ANDROID.digest  # type: ignore[union-attr]
    assert "tag_moved" not in first.facts
    moving.real.push("lab/moving", "1", NEWER)
    second = moving.obtain()
    assert second.image == first.image
    assert second.change is not None
    assert (second.change.old, second.change.new) == (ANDROID.digest, NEWER.digest)
    assert NEWER.digest in second.facts["tag_moved"]
    assert "the tag lab/moving:1 has moved" in moving.said()
    assert moving.obtain().change == second.change  # seen when it was first seen


def test_the_old_image_is_pulled_by_its_digest_until_an_update(moving: Bench) -> None:
    moving.obtain()
    moving.real.push("lab/moving", "1", NEWER)
    shutil.rmtree(moving.cache)
    must_be(moving.obtain().image, ANDROID, "lab/moving:1")
    updated = moving.obtain(update=True)
    must_be(updated.image, NEWER, "lab/moving:1")
    assert updated.change is None
    assert f"it was {ANDROID.digest}" in moving.said()
    assert moving.obtain().image == updated.image
    assert len(images.entries(moving.cache)) == 2


def test_a_tag_that_came_back_is_no_change(moving: Bench) -> None:
    moving.obtain()
    moving.real.push("lab/moving", "1", NEWER)
    assert moving.obtain().change is not None
    moving.real.push("lab/moving", "1", ANDROID)
    assert moving.obtain().change is None


def test_a_learned_digest_that_the_registry_lost(moving: Bench) -> None:
    moving.obtain()
    moving.real.push("lab/moving", "1", NEWER)
    shutil.rmtree(moving.cache)
    moving.door.always.append((f"/manifests/{ANDROID.digest}", Manner(status=404)))
    with pytest.raises(NotFoundError, match=f"no longer has {ANDROID.digest}") as caught:
        moving.obtain()
    assert NEWER.digest in caught.value.hint


def test_a_cached_image_is_used_while_the_registry_is_away(moving: Bench) -> None:
    first = moving.obtain()
    assert moving.obtain(mirror="127.0.0.1:1") == first
    assert "has moved is not known" in moving.said()


def test_a_pinned_digest_decides_and_asks_nobody_once_it_is_here(moving: Bench) -> None:
    moving.real.push("lab/moving", "2", NEWER)
    for pinned in (
        moving.obtain(digest=NEWER.digest),
        moving.obtain(name=f"lab/moving:1@{NEWER.digest}", mirror="127.0.0.1:1"),
        moving.obtain(digest=NEWER.digest, mirror="127.0.0.1:1"),
    ):
        must_be(pinned.image, NEWER, "lab/moving:1")
    assert Learned(moving.state).get(moving.reference) is None


def test_an_index_is_what_is_learned_of_its_tag(bench: Bench) -> None:
    platforms = {"linux/amd64": image(30), "linux/arm64": image(31, architecture="arm64")}
    named = bench.real.push_index("lab/index", "1", platforms)
    assert named == digest(index(platforms))
    first = bench.obtain(name="lab/index:1")
    assert first.facts["digest"] == named
    assert bench.obtain(name="lab/index:1") == first
    assert hashlib.sha256(first.image.path.read_bytes()).hexdigest() == first.image.manifest.sha256

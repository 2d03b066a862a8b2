"""What `auto` stands for, said out loud; and a lab is what it was made as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import deadline
from lab.commands import choose
from lab.errors import BlockedError, UsageError
from lab.images import debian
from lab.steps import Event, Steps
from tests.unit.bed import Bed

real_guest_image = choose.guest_image


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


class FakePublished:
    def __init__(self, cached: bool, unreachable: str | None) -> None:
        self.cached, self.unreachable = cached, unreachable

    def find(self, images: Path) -> Path | None:
        return images / "ubuntu-24.04-cached" if self.cached else None

    def reachable(self, _timeout: float) -> str | None:
        return self.unreachable

    def fetch(self, images: Path, *_: object) -> Path:
        return images / "ubuntu-24.04-fetched"


AWAY = "the name does not resolve"


def _choose(
    bed: Bed, wanted: str, cached: bool, unreachable: str | None
) -> tuple[tuple[str, str], list[str]]:
    heard: list[Event] = []
    session = bed.session(image=wanted)
    session.steps = Steps(heard.append)
    bed.patch.setattr(choose, "published", lambda _name: FakePublished(cached, unreachable))
    bed.patch.setattr(debian, "find", lambda _images: None)
    bed.patch.setattr(debian, "build", lambda images, _step: images / "debian-13-built")
    record = choose.record_for(session, session.store.place("default"))
    return real_guest_image(session, record), [event.text for event in heard if event.kind == "note"]


@pytest.mark.parametrize(
    ("wanted", "cached", "unreachable", "image", "why"),
    [
        ("auto", True, AWAY, "ubuntu-24.04-cached", "cached"),
        ("auto", True, None, "ubuntu-24.04-cached", "cached"),
        ("auto", False, None, "ubuntu-24.04-fetched", "its server can be reached"),
        ("ubuntu-24.04", True, AWAY, "ubuntu-24.04-cached", "asked for"),
        ("ubuntu-24.04", False, None, "ubuntu-24.04-fetched", "asked for"),
        ("debian-13", True, None, "debian-13-built", "asked for"),
    ],
)
def test_which_image(
    bed: Bed, wanted: str, cached: bool, unreachable: str | None, image: str, why: str
) -> None:
    assert _choose(bed, wanted, cached, unreachable) == ((image, why), [])


def test_debian_in_place_of_ubuntu_is_said_with_the_reason(bed: Bed) -> None:
    (image, why), notes = _choose(bed, "auto", False, AWAY)
    assert image == "debian-13-built"
    assert AWAY in why
    assert notes == [f"image: debian-13, because {why}"]


def test_ubuntu_that_was_asked_for_is_not_replaced(bed: Bed) -> None:
    with pytest.raises(BlockedError, match=AWAY):
        _choose(bed, "ubuntu-24.04", False, AWAY)


def test_an_image_gone_from_the_cache_blocks(bed: Bed) -> None:
    session = bed.session()
    lab = session.store.place("default")
    choose.record_for(session, lab)
    with pytest.raises(BlockedError, match="gone from the cache") as caught:
        real_guest_image(session, lab.change(image="debian-13-gone"))
    assert "--fresh" in caught.value.hint


def test_a_lab_keeps_what_it_was_made_with(bed: Bed) -> None:
    lab = bed.session().store.place("default")
    made = choose.record_for(bed.session(vm={"memory_mib": 1024}), lab)
    assert (made.engine, made.emulator, made.memory_mib, made.image) == ("qemu", "canary", 1024, "")
    assert [entry.key for entry in lab.journal.entries("lab")] == [made.uuid]
    assert choose.record_for(bed.session(vm={"memory_mib": 2048}), lab) == made


@pytest.mark.parametrize(
    ("flags", "agrees"),
    [
        ({"image": "debian-13"}, True),
        ({"image": "auto", "emulator": "auto", "engine": "auto"}, True),
        ({"emulator": "canary", "engine": "qemu"}, True),
        ({"image": "ubuntu-24.04"}, False),
        ({"emulator": "none"}, False),
    ],
)
def test_flags_must_agree_with_the_record(bed: Bed, flags: dict[str, Any], agrees: bool) -> None:
    lab = bed.session().store.place("default")
    choose.record_for(bed.session(), lab)
    made = lab.change(image="debian-13-0a1b")
    if agrees:
        assert choose.record_for(bed.session(**flags), lab) == made
        return
    with pytest.raises(UsageError) as caught:
        choose.record_for(bed.session(**flags), lab)
    assert "--fresh" in caught.value.hint
    assert lab.read() == made


def test_there_is_one_published_image() -> None:
    assert choose.published(choose.UBUNTU)
    with pytest.raises(UsageError, match="plan9"):
        choose.published("plan9")

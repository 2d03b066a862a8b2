"""What `auto` stands for, said out loud; and a lab is what it was made as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import deadline, engines
from lab.commands import choose, consent
from lab.emulators.docker_android import image
from lab.engines.protocol import Availability, EngineFacts
from lab.errors import BlockedError, UsageError
from lab.images import debian, registry
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
    session = bed.session(image=wanted, emulator="canary")
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


@dataclass
class FakeVirtualBox:
    """As much of the preferred engine as the choice looks at."""

    usable: bool
    warning: str = ""
    name: str = "virtualbox"

    def availability(self) -> Availability:
        return Availability(self.usable, "7.2.22 answers" if self.usable else "not installed")

    def caution(self) -> str:
        return self.warning

    def facts(self) -> EngineFacts:
        return EngineFacts("virtualbox", "7.2.22", "hwvirt", "hardware", "the kernel module is loaded")


@pytest.mark.parametrize(
    ("found", "nested", "allowed", "chosen", "because"),
    [
        (FakeVirtualBox(True), True, False, "virtualbox", "7.2.22 answers"),
        (FakeVirtualBox(False), True, False, "qemu", "not installed"),
        (FakeVirtualBox(True, "it can hang the host."), True, False, "qemu", "nobody can be asked"),
        (FakeVirtualBox(True, "it can hang the host."), False, False, "virtualbox", "7.2.22"),
        (FakeVirtualBox(True, "it can hang the host."), True, True, "virtualbox", "7.2.22"),
    ],
)
def test_auto_prefers_virtualbox_where_it_can_start_a_vm_and_may(
    bed: Bed, found: FakeVirtualBox, nested: bool, allowed: bool, chosen: str, because: str
) -> None:
    heard: list[Event] = []
    session = bed.session(engine="auto", vm={"nested": nested}, virtualbox={"allow_nested_on_host": allowed})
    session.steps = Steps(heard.append)
    bed.patch.setattr(engines, "engine", lambda *_: found)
    record = choose.record_for(session, session.store.place("default"))
    assert record.engine == chosen
    assert [event.text for event in heard if because in event.text]


@pytest.mark.parametrize(
    ("acceleration", "nested", "cached", "unreachable", "kind", "because"),
    [
        ("hardware", True, False, None, "docker-android", "can be fetched"),
        ("hardware", True, True, AWAY, "docker-android", "is here"),
        ("hardware", True, False, AWAY, "canary", AWAY),
        ("hardware", False, True, None, "canary", "switched off"),
        ("emulated", True, True, None, "canary", "nesting is emulated"),
        ("emulated", True, False, AWAY, "canary", AWAY),
    ],
)
def test_android_runs_by_itself_only_where_it_can_and_its_image_can_be_had(
    bed: Bed,
    acceleration: Any,
    nested: bool,
    cached: bool,
    unreachable: str | None,
    kind: str,
    because: str,
) -> None:
    found = FakeVirtualBox(True)
    facts = EngineFacts("virtualbox", "7.2.22", "hwvirt", acceleration, "as the test says")
    bed.patch.setattr(found, "facts", lambda: facts)
    bed.patch.setattr(engines, "engine", lambda *_: found)
    bed.patch.setattr(image, "find", lambda *_: object() if cached else None)
    bed.patch.setattr(registry, "reachable", lambda *_: unreachable)
    heard: list[Event] = []
    session = bed.session(vm={"nested": nested})
    session.steps = Steps(heard.append)
    chosen, why = choose.emulator_kind(session, "virtualbox")
    assert (chosen, because in why) == (kind, True)
    assert [event.text for event in heard] == [f"emulator: {kind} ({why})"]
    assert choose.emulator_kind(bed.session(emulator="none"), "virtualbox") == ("none", choose.ASKED_FOR)


def test_consent_is_asked_for_once_and_kept(bed: Bed) -> None:
    engine: Any = FakeVirtualBox(True, "it can hang the host.")
    asked: list[str] = []
    session = bed.session()
    with pytest.raises(BlockedError, match="nobody agreed") as caught:
        consent.require(session, engine)
    assert "allow_nested_on_host" in caught.value.hint

    def answer(yes: bool) -> None:
        session.interactive = True
        session.ask = lambda question: bool(asked.append(question)) or yes

    answer(False)
    with pytest.raises(BlockedError):
        consent.require(session, engine)
    answer(True)
    consent.require(session, engine)
    consent.require(session, engine)
    assert len(asked) == 2 and "it can hang the host." in asked[0]
    assert consent.given(bed.session(), engine)
    assert not consent.given(bed.session(), FakeVirtualBox(True, "x", name="another"))  # type: ignore[arg-type]


def test_there_is_one_published_image() -> None:
    assert choose.published(choose.UBUNTU)
    with pytest.raises(UsageError, match="plan9"):
        choose.published("plan9")

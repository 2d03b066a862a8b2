"""What `auto` stands for, said out loud; and a lab is what it was made as."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import engines
from lab.core.errors import BlockedError, UsageError
from lab.core.steps import Event, Steps
from lab.emulators.docker_android import image
from lab.engines.protocol import Availability, EngineFacts
from lab.host import packages
from lab.images import debian
from lab.workflow import consent, guest_image, selection
from tests.unit.bed import Bed

real_guest_image = guest_image.guest_image


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
    bed.use(published=lambda *_: FakePublished(cached, unreachable))
    session = bed.session(image=wanted, emulator="canary")
    session.steps = Steps(heard.append)
    bed.patch.setattr(debian, "find", lambda _images: None)
    bed.patch.setattr(debian, "build", lambda images, _step: images / "debian-13-built")
    record = selection.record_for(session, session.store.place("default"))
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
    selection.record_for(session, lab)
    with pytest.raises(BlockedError, match="gone from the cache") as caught:
        real_guest_image(session, lab.change(image="debian-13-gone"))
    assert "--fresh" in caught.value.hint


def test_a_lab_keeps_what_it_was_made_with(bed: Bed) -> None:
    lab = bed.session().store.place("default")
    made = selection.record_for(bed.session(vm={"memory_mib": 1024}), lab)
    assert (made.engine, made.emulator, made.memory_mib, made.image) == ("qemu", "canary", 1024, "")
    assert [entry.key for entry in lab.journal.entries("lab")] == [made.uuid]
    assert selection.record_for(bed.session(vm={"memory_mib": 2048}), lab) == made


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
    selection.record_for(bed.session(), lab)
    made = lab.change(image="debian-13-0a1b")
    if agrees:
        assert selection.record_for(bed.session(**flags), lab) == made
        return
    with pytest.raises(UsageError) as caught:
        selection.record_for(bed.session(**flags), lab)
    assert "--fresh" in caught.value.hint
    assert lab.read() == made


@dataclass
class FakeImage:
    """As much of docker-android's image as the choice looks at."""

    bytes: int = 3 << 30


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
    bed.use(engine=lambda *_: found)
    session = bed.session(engine="auto", vm={"nested": nested}, virtualbox={"allow_nested_on_host": allowed})
    session.steps = Steps(heard.append)
    record = selection.record_for(session, session.store.place("default"))
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
    bed.use(engine=lambda *_: found)
    bed.patch.setattr(image, "find", lambda *_: FakeImage() if cached else None)
    bed.registry_unreachable = lambda *_: unreachable
    heard: list[Event] = []
    session = bed.session(vm={"nested": nested})
    session.steps = Steps(heard.append)
    chosen, why = selection.emulator_kind(session, "virtualbox")
    assert (chosen, because in why) == (kind, True)
    assert [event.text for event in heard] == [f"emulator: {kind} ({why})"]
    assert selection.emulator_kind(bed.session(emulator="none"), "virtualbox") == (
        "none",
        guest_image.ASKED_FOR,
    )


def _with_hardware(bed: Bed) -> None:
    """Where `auto` would take Android, but for what the test adds."""
    found = FakeVirtualBox(True)
    bed.use(engine=lambda *_: found)
    bed.registry_unreachable = lambda *_: None


def test_what_is_known_of_images_being_damaged_is_a_reason_and_no_end(bed: Bed) -> None:
    _with_hardware(bed)
    damaged = bed.session().settings.state_dir / "image-digests.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text('{"schema": "lab.im')
    session = bed.session(engine="virtualbox")
    record = selection.record_for(session, session.store.place("default"))
    assert record.emulator == "canary" and "image-digests.json is damaged" in record.emulator_why
    # Who asks for Android is told what to do.
    with pytest.raises(BlockedError, match="is damaged") as caught:
        selection.record_for(bed.session(emulator="docker-android"), session.store.place("android"))
    assert (
        "remove it" in caught.value.hint and not (session.store.place("android").folder / "lab.json").exists()
    )


@pytest.mark.parametrize(
    ("vm", "emulator", "size"),
    [
        ({}, {}, (5120, 32)),
        ({}, {"memory_mib": 1024}, (4096, 32)),  # the defaults are enough
        ({}, {"memory_mib": 8192}, (10240, 32)),
        ({"memory_mib": 6000}, {}, (6000, 32)),
        ({"disk_gib": 20}, {}, (5120, 20)),
        ({"memory_mib": 4097, "disk_gib": 11}, {}, (4097, 11)),
    ],
)
def test_new_lab_is_large_enough_for_android_unless_somebody_said_how_large(
    bed: Bed, vm: dict[str, int], emulator: dict[str, Any], size: tuple[int, int]
) -> None:
    session = bed.session(vm=vm, emulator={"kind": "docker-android"} | emulator)
    record = selection.record_for(session, session.store.place("default"))
    assert (record.memory_mib, record.disk_gib) == size
    session = bed.session(vm=vm, emulator={"kind": "canary"} | emulator)
    record = selection.record_for(session, session.store.place("canary"))
    assert (record.memory_mib, record.disk_gib) == (vm.get("memory_mib", 4096), vm.get("disk_gib", 12))


def test_value_that_is_the_default_and_was_said_is_kept(bed: Bed) -> None:
    session = bed.session(emulator="docker-android")
    session.settings.with_origins({"vm.disk_gib": "LAB_VM__DISK_GIB", "vm.memory_mib": "lab.toml"})
    record = selection.record_for(session, session.store.place("default"))
    assert (record.memory_mib, record.disk_gib) == (5120, 12)


@pytest.mark.parametrize(
    ("vm", "what"),
    [({"memory_mib": 3500}, r"vm\.memory_mib = 3500"), ({"disk_gib": 10}, r"vm\.disk_gib = 10")],
)
def test_vm_that_was_said_to_be_too_small_is_refused_or_gets_the_canary(
    bed: Bed, vm: dict[str, int], what: str
) -> None:
    session = bed.session(vm=vm, emulator="docker-android")
    place = session.store.place("default")
    with pytest.raises(UsageError, match=what) as caught:
        selection.record_for(session, place)
    assert "vm.memory_mib = 5120 and vm.disk_gib = 32" in caught.value.hint and place.read() is None
    _with_hardware(bed)
    kind, why = selection.emulator_kind(bed.session(vm=vm, engine="virtualbox"), "virtualbox")
    assert kind == "canary" and re.search(what, why)


def test_an_engine_that_is_to_be_installed_is_asked_after_that(bed: Bed) -> None:
    """Else a cold run takes the canary for good, where Android would run."""
    installed: list[object] = []
    found = FakeVirtualBox(False)
    facts = found.facts()

    def answer() -> EngineFacts:
        if not found.usable:
            raise BlockedError("`qemu-system-x86_64` is not installed")
        return facts

    def install(purposes: object, **_: object) -> None:
        installed.append(purposes)
        found.usable = True

    bed.patch.setattr(found, "facts", answer)
    bed.use(engine=lambda *_: found)
    bed.registry_unreachable = lambda *_: None
    bed.use(install=install)
    for name in ("default", "another"):  # the second finds it installed
        session = bed.session(engine="virtualbox")
        assert selection.record_for(session, session.store.place(name)).emulator == "docker-android"
    assert installed == [engines.kind("virtualbox").purposes]


@pytest.mark.parametrize("interactive", [False, True])
def test_an_engine_that_cannot_be_installed_is_judged_by_that_alone(bed: Bed, interactive: bool) -> None:
    bed.use(engine=lambda *_: FakeVirtualBox(False))
    bed.registry_unreachable = lambda *_: None

    def refuse(*_: object, **_more: object) -> None:
        raise BlockedError("missing on this host: QEMU")

    bed.use(install=refuse)
    session = bed.session(engine="qemu")
    session.interactive = interactive
    if interactive:  # who said no is not asked the same by the next rung
        with pytest.raises(BlockedError, match="missing"):
            selection.record_for(session, session.store.place("default"))
        assert session.store.place("default").read() is None
    else:
        record = selection.record_for(session, session.store.place("default"))
        assert record.emulator == "canary"
        assert "qemu cannot be asked whether it nests (missing on this host: QEMU)" in record.emulator_why


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


def test_a_manifest_makes_an_image_that_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guest_image.UBUNTU in guest_image.PUBLISHED
    for name in guest_image.PUBLISHED:
        assert guest_image.published(name, "qemu").name == name
    with pytest.raises(UsageError, match="plan9") as caught:
        guest_image.published("plan9", "qemu")
    assert guest_image.UBUNTU in caught.value.hint
    manifest = (guest_image.GUEST_IMAGES / f"{guest_image.UBUNTU}.toml").read_text()
    (tmp_path / "plan9.toml").write_text(manifest)
    monkeypatch.setattr(guest_image, "GUEST_IMAGES", tmp_path)
    monkeypatch.setattr(guest_image, "PUBLISHED", ("plan9",))
    with pytest.raises(UsageError, match=f"of an image named {guest_image.UBUNTU}"):
        guest_image.published("plan9", "qemu")


@pytest.mark.parametrize(
    ("image", "own"),
    [
        ("debian-13-0a1b2c3d4e5f", True),
        ("debian-13-generic-0a1b2c3d4e5f", False),
        ("ubuntu-24.04-0a1b2c3d4e5f", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_labs_own_image_is_told_by_its_whole_name(image: str, own: bool) -> None:
    assert guest_image.is_own(image) is own


def test_an_image_with_a_longer_name_is_another(bed: Bed) -> None:
    lab = bed.session().store.place("default")
    selection.record_for(bed.session(), lab)
    lab.change(image="debian-13-generic-0a1b2c3d4e5f")
    with pytest.raises(UsageError, match="has image debian-13-generic, not debian-13"):
        selection.record_for(bed.session(image="debian-13"), lab)


@pytest.mark.parametrize(
    ("engine", "form"), [("qemu", "qcow2"), ("virtualbox", "vmdk"), ("vagrant-virtualbox", "qcow2")]
)
def test_it_is_taken_in_the_format_the_engine_reads(engine: str, form: str) -> None:
    image = guest_image.published(guest_image.UBUNTU, engine)
    assert image.format == form
    assert Path(image.file).stem == "ubuntu-24.04-server-cloudimg-amd64"


@pytest.mark.parametrize(
    ("wanted", "ubuntu", "away", "built", "expected"),
    [
        ("debian-13", False, AWAY, False, True),
        ("debian-13", False, AWAY, True, False),
        ("auto", False, AWAY, False, True),
        ("auto", False, None, False, False),  # a Mac can fetch Ubuntu's image, and build none
        ("auto", True, AWAY, False, False),
        ("auto", False, AWAY, True, False),
        ("ubuntu-24.04", False, AWAY, False, False),
    ],
)
def test_tools_to_build_with_are_wanted_only_for_what_is_not_there(
    bed: Bed, wanted: str, ubuntu: bool, away: str | None, built: bool, expected: bool
) -> None:
    bed.use(published=lambda *_: FakePublished(ubuntu, away))
    session = bed.session(image=wanted, emulator="canary")
    bed.patch.setattr(debian, "find", lambda images: images / "debian-13-built" if built else None)
    wants = {"build-image"} if expected else set()
    assert guest_image.purposes(session, "virtualbox") - engines.kind("virtualbox").purposes == wants
    made = guest_image.purposes(session, "virtualbox", "debian-13-made-from")
    assert made == engines.kind("virtualbox").purposes


def test_what_a_lab_needs_is_asked_for_at_once(bed: Bed) -> None:
    """The engine alone first, and the tools that build its image some minutes later, is asking twice."""
    asked: list[object] = []
    bed.use(engine=lambda *_: FakeVirtualBox(False))
    bed.use(published=lambda *_: FakePublished(False, AWAY))
    bed.patch.setattr(debian, "find", lambda _images: None)
    bed.use(install=lambda purposes, **_: asked.append(purposes))
    session = bed.session(engine="virtualbox")
    selection.record_for(session, session.store.place("default"))
    assert asked == [engines.kind("virtualbox").purposes | {"build-image"}]


def test_where_no_image_can_be_built_ubuntus_is_not_replaced(bed: Bed) -> None:
    bed.use(impossible=lambda _purposes: [packages.TABLE[0]])
    with pytest.raises(BlockedError, match=AWAY) as caught:
        _choose(bed, "auto", False, AWAY)
    assert caught.value.hint == "check the network"
    assert _choose(bed, "auto", False, None)[0][0] == "ubuntu-24.04-fetched"


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_auto_does_not_leave_a_virtualbox_that_a_mac_has_for_another_engine(bed: Bed, platform: str) -> None:
    """The theory is about it: QEMU with the canary in its place would answer another question."""
    bed.patch.setattr(sys, "platform", platform)
    broken = Availability(False, "Cannot find VBoxPython module", "install its bindings", broken=True)
    found = FakeVirtualBox(False)
    bed.patch.setattr(found, "availability", lambda: broken)
    bed.use(engine=lambda *_: found)
    if platform == "linux":
        assert selection.engine_name(bed.session(engine="auto")) == "qemu"
        return
    session = bed.session(engine="auto")
    with pytest.raises(BlockedError, match="Cannot find VBoxPython module") as caught:
        selection.record_for(session, session.store.place("default"))
    assert "install its bindings; " in caught.value.hint and "--engine qemu" in caught.value.hint
    assert session.store.place("default").read() is None
    assert selection.engine_name(bed.session(engine="qemu")) == "qemu"  # who asks for it gets it
    bed.patch.setattr(found, "availability", lambda: Availability(False, "VirtualBox is not installed"))
    assert selection.engine_name(bed.session(engine="auto")) == "qemu"

"""theory.rehearse before its PC is switched on: what must be there, and the images that it is made of."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.config import Settings
from lab.config.model import RehearsalSection
from lab.core.deadline import cancelled
from lab.core.errors import BlockedError, UsageError
from lab.core.steps import Steps
from lab.host import packages
from lab.images import cache, canary, debian
from lab.rehearsal import image
from lab.rehearsal.image import SystemImage
from lab.tasks.image.build import build
from lab.tasks.image.list import list_images
from lab.tasks.image.prune import prune
from lab.tasks.theory.rehearse import RehearsalTools, rehearse
from lab.workflow.factories import Factories
from lab.workflow.session import Session
from tests import schema
from tests.unit.bed import host
from tests.unit.rehearsaldesk import AT, Desk, checked, climbed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    yield Desk(tmp_path, monkeypatch)
    cancelled.clear()


# --- before anything is made -----------------------------------------------------------------------


def test_what_cannot_be_done_here_is_said_before_anything_is_made(desk: Desk) -> None:
    with pytest.raises(UsageError, match="no emulated processor 'z80'"):
        rehearse(desk.session, cpu="z80", tools=desk.tools)
    desk.patch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(BlockedError, match="Linux on x86_64"):
        rehearse(desk.session, tools=desk.tools)
    desk.patch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(BlockedError, match="`bochs` is not installed"):
        rehearse(desk.session, tools=desk.tools)  # whose script is empty
    desk.answers(0, climbed())
    desk.factories = replace(desk.factories, host=lambda: host(memory=2 << 30))
    with pytest.raises(BlockedError, match="takes 2560 MiB of memory, and 2048 MiB is available"):
        rehearse(desk.session, tools=desk.tools)
    desk.factories = Factories(host=host, install=lambda *_, **__: None)
    usage = shutil._ntuple_diskusage(1 << 40, 0, 7 << 30)  # type: ignore[attr-defined]
    desk.patch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BlockedError, match=r"a rehearsal needs 8\.0 GiB"):
        rehearse(desk.session, tools=desk.tools)
    assert desk.nothing_was_made()


def test_amd_is_another_emulators(desk: Desk) -> None:
    desk.answers(0, climbed())
    _, _, told = checked(desk, cpu="amd")
    assert desk.needed == [{"rehearsal-amd"}] and "nested AMD-V" in told
    for purpose in ("rehearsal", "rehearsal-amd"):
        programs = {name for item in packages.TABLE if purpose in item.needed_for for name in item.programs}
        assert {"mke2fs", "debugfs", "e2fsck"} <= programs
        assert ("bochs" in programs) is (purpose == "rehearsal")
        assert ("qemu-system-x86_64" in programs) is (purpose == "rehearsal-amd")


def test_a_bochs_of_ones_own_is_not_asked_of_the_package_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    settings = Settings(
        state_dir=tmp_path, cache_dir=tmp_path, rehearsal=RehearsalSection(bochs="/opt/bochs")
    )
    factories = Factories(install=lambda _purposes, **more: asked.update(more))
    Session(settings, Steps(), False, factories=factories).need({"rehearsal"})
    assert asked["instead"]["bochs"] == "/opt/bochs"


def test_images_that_are_missing_are_built_first(desk: Desk) -> None:
    desk.answers(0, climbed())
    for module, built in (
        (image, lambda _cache, _step: SystemImage(desk.images / "rehearsal-sid-1")),
        (debian, lambda _cache, _step: desk.images / "debian-13-1"),
        (canary, lambda _cache, _step, _archive: cache.CachedImage(desk.images / "canary-1", None)),  # type: ignore[arg-type]
    ):
        desk.patch.setattr(module, "find", lambda _: None)
        desk.patch.setattr(module, "build", built)
    desk.patch.setattr("lab.workflow.mirror.debian", lambda _session: "http://mirror.example/debian")
    desk.tools = RehearsalTools(desk.pcs.workshop)
    found, code, _ = checked(desk)
    assert (found["verdict"], code) == ("confirmed", 0)
    assert desk.needed == [{"rehearsal"}, {"build-image"}]
    built = [event.text for event in desk.events if (event.kind, event.name) == ("started", "image.build")]
    assert sorted(built) == ["canary", "debian-13", "rehearsal"]


# --- its image in the cache ------------------------------------------------------------------------


def test_the_pcs_image_is_listed_and_pruned_as_any_other(desk: Desk) -> None:
    folder = desk.images / "rehearsal-sid-2"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(b"a disk")
    manifest = cache.Manifest(
        id=folder.name, kind="rehearsal", name="rehearsal-sid", file="disk.raw", format="raw", bytes=6,
        sha256="0" * 64, created=AT,
    )  # fmt: skip
    cache.seal(folder, manifest)
    listed = list_images(desk.session).document
    schema.validate(listed)
    assert [(row["id"], row["kind"]) for row in listed["images"]] == [("rehearsal-sid-2", "rehearsal")]
    pruned = prune(desk.session).document
    schema.validate(pruned)
    assert ("rehearsal-sid-2", "removed") in [(row["id"], row["result"]) for row in pruned["results"]]
    assert not folder.exists()


def test_the_pcs_image_is_built_beforehand_where_it_is_asked_for(desk: Desk) -> None:
    folder = desk.images / "rehearsal-sid-3"
    for name in ("rehearsal-sid-3", "debian-13-3", "canary-3"):
        (desk.images / name).mkdir()
        kind = {"d": "guest", "c": "canary", "r": "rehearsal"}[name[0]]
        (desk.images / name / "disk.raw").write_bytes(b"a disk")
        made = {"id": name, "kind": kind, "name": name[:-2], "file": "disk.raw", "format": "raw", "bytes": 6}
        manifest = cache.Manifest.model_validate(made | {"sha256": "0" * 64, "created": AT})
        cache.seal(desk.images / name, manifest)
    desk.patch.setattr(image, "build", lambda _cache, _step: SystemImage(folder))
    desk.patch.setattr(debian, "build", lambda _cache, _step: desk.images / "debian-13-3")
    canary_3 = cache.find(desk.images, "canary-3")
    desk.patch.setattr(canary, "build", lambda *_: canary_3)
    desk.patch.setattr("lab.workflow.mirror.debian", lambda _session: "http://mirror.example/debian")
    both = build(desk.session, "").document
    assert [row["id"] for row in both["results"]] == ["canary-3", "debian-13-3"] and both["notes"] == []
    named = build(desk.session, "rehearsal").document
    schema.validate(named)
    assert [(row["id"], row["kind"]) for row in named["results"]] == [("rehearsal-sid-3", "rehearsal")]
    desk.patch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(BlockedError, match="built on Linux only") as caught:
        build(desk.session, "rehearsal")
    assert "theory.rehearse" in caught.value.hint

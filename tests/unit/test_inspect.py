"""Looking without touching: status, list, config, the host, the image cache."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.core.errors import InterruptedByUser, LabError, UsageError
from lab.core.lock import hold
from lab.engines.protocol import Availability, State
from lab.host import facts, kvm, packages
from lab.images import cache, uses
from lab.records.labs import Lab
from lab.records.record import Instance, Record
from lab.tasks.image.build import build
from lab.tasks.image.fetch import fetch
from lab.tasks.image.list import list_images
from lab.tasks.image.prune import prune
from lab.tasks.image.verify import verify
from lab.tasks.lab import config, evidence, status
from lab.tasks.lab.doctor import doctor
from lab.tasks.lab.up import up
from lab.workflow import consent, selection
from lab.workflow.destroy import destroy
from lab.workflow.session import Reply, Session
from tests.unit.bed import Bed, checked, host
from tests.unit.fakes import FakeEngine

NAME = "default"


def _shown(reply: Reply) -> str:
    assert reply.show
    reply.show(Console(file=(written := io.StringIO()), width=200))
    return written.getvalue()


def test_status_of_a_running_lab(bed: Bed) -> None:
    up(bed.session(), NAME)
    with bed.untouched():
        reply = status.status(bed.session(), NAME, deep=True)
    document = checked(reply)
    assert (document["lab"]["state"], document["holder"]) == ("running", None)
    assert {row["name"] for row in document["forwards"]} == {"ssh", "adb"}
    assert (document["container"]["running"], document["container"]["health"]) == (True, "healthy")
    assert f"adb connect {document['adb']['address']}" in _shown(reply)


def test_status_of_a_stopped_lab_offers_no_way_in(bed: Bed) -> None:
    up(bed.session(), NAME)
    bed.world.state = State.STOPPED
    document = checked(status.status(bed.session(), NAME, deep=True))
    assert (document["lab"]["state"], document["ssh"], document["adb"], document["container"]) == (
        "stopped",
        None,
        None,
        None,
    )


def test_a_container_that_cannot_be_asked_is_not_made_up(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise LabError("Docker does not answer")

    up(bed.session(), NAME)
    monkeypatch.setattr("tests.unit.fakes.FakeEmulator.state", silent)
    assert checked(status.status(bed.session(), NAME, deep=True))["container"] is None


def test_a_half_made_lab_is_shown_as_such(bed: Bed) -> None:
    lab = bed.session().store.place(NAME)
    assert checked(status.status(bed.session(), NAME))["lab"]["state"] == "half-made"
    assert checked(status.list_labs(bed.session()))["labs"][0]["state"] == "half-made"
    selection.record_for(bed.session(), lab)
    assert checked(status.status(bed.session(), NAME))["lab"]["state"] == "absent"


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 1}'])
def test_a_lab_that_cannot_be_read_hides_no_other_and_can_be_destroyed(bed: Bed, content: str) -> None:
    checked(up(bed.session(), NAME))
    checked(up(bed.session(), "other"))
    record = bed.lab().folder / "lab.json"
    record.write_text(content)
    rows = checked(status.list_labs(bed.session()))["labs"]
    assert {row["name"]: row["state"] for row in rows} == {NAME: "unreadable", "other": "running"}
    gone = checked(destroy(bed.session(), NAME))
    assert any("cannot be read" in note for note in gone["notes"])
    assert "destroy" in bed.world.calls  # its VM went with it
    assert [lab.name for lab in bed.session().store.labs()] == ["other"]


def _denied(bed: Bed, name: str) -> None:
    """As after one `sudo` run: what is in that lab's folder may not be read."""
    real = Path.read_text

    def read_text(path: Path, *args: Any, **more: Any) -> str:
        if path.is_relative_to(bed.lab(name).folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    bed.patch.setattr(Path, "read_text", read_text)


def _noted(bed: Bed) -> tuple[Session, list[str]]:
    session, notes = bed.session(), []
    session.steps.subscribe(lambda event: notes.append(event.text))
    return session, notes


def test_a_lab_that_may_not_be_read_hides_no_other_and_says_what_mends_it(bed: Bed) -> None:
    checked(up(bed.session(), NAME))
    checked(up(bed.session(), "other"))
    _denied(bed, NAME)
    session, notes = _noted(bed)
    rows = checked(status.list_labs(session))["labs"]
    assert {row["name"]: row["state"] for row in rows} == {NAME: "unreadable", "other": "running"}
    (note,) = notes
    assert note.startswith(f"lab {NAME}: ") and "belongs to" in note and "mends it" in note
    assert checked(status.status(session, NAME))["lab"]["state"] == "unreadable"
    assert checked(status.status(session, "other"))["lab"]["state"] == "running"


@pytest.mark.parametrize("error", [NotADirectoryError, PermissionError])
def test_an_engines_files_that_may_not_be_read_hide_no_lab(bed: Bed, error: type[OSError]) -> None:
    checked(up(bed.session(), NAME))
    code = errno.ENOTDIR if error is NotADirectoryError else errno.EACCES
    bed.world.broken["status"] = error(code, "refused", str(bed.lab().vm_folder / "disk.qcow2"))
    row = checked(status.list_labs(bed.session()))["labs"][0]
    assert row["state"] == "unknown" and row["emulators"]


def test_an_emulator_of_a_newer_lab_hides_no_other(bed: Bed) -> None:
    checked(up(bed.session(), NAME))
    bed.lab().change(instances={"x": Instance(kind="of tomorrow", index=1)})
    checked(up(bed.session(), "other"))
    assert len(checked(status.list_labs(bed.session()))["labs"]) == 2


def test_a_list_can_be_interrupted(bed: Bed) -> None:
    checked(up(bed.session(), NAME))
    bed.world.broken["status"] = InterruptedByUser("interrupted")
    with pytest.raises(InterruptedByUser):
        status.list_labs(bed.session())


@pytest.mark.parametrize("file", ["run.json", "validation.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', '{"verdict": 5}'])
def test_a_torn_file_of_one_run_hides_no_evidence(bed: Bed, file: str, content: str) -> None:
    checked(up(bed.session(), NAME))
    checked(up(bed.session(), NAME, fresh=True))
    first = bed.runs()[0]
    (first / file).write_text(content)
    rows = checked(evidence.evidence(bed.session(), NAME))["runs"]
    assert [row["run"] for row in rows] == [path.name for path in bed.runs()]
    assert rows[-1]["verdict"] == "confirmed"
    assert (rows[0]["verb"], rows[0]["started"][:10]) == ("up", rows[-1]["started"][:10])


@pytest.mark.parametrize("content", ["", "{", "[]", '["qemu"]', '"qemu"', "null"])
def test_what_cannot_be_read_agrees_to_nothing(bed: Bed, content: str) -> None:
    bed.world.caution = "It can hang this host."
    session = bed.session()
    session.settings.state_dir.mkdir()
    agreed = session.settings.state_dir / "agreed.json"
    agreed.write_text(content)
    assert not consent.given(session, FakeEngine(bed.world))
    consent.require(replace(session, interactive=True, ask=lambda _question: True), FakeEngine(bed.world))
    assert consent.given(session, FakeEngine(bed.world))


def test_a_lab_whose_engine_does_not_answer_is_listed(bed: Bed) -> None:
    checked(up(bed.session(), NAME))
    bed.world.broken["status"] = LabError("VirtualBox is not installed")
    assert checked(status.list_labs(bed.session()))["labs"][0]["state"] == "unknown"


def test_status_names_the_holder(bed: Bed) -> None:
    lab = bed.session().store.place(NAME)
    with hold(lab.lock_file, "lab.up", "lab"):
        reply = status.status(bed.session(), NAME)
    assert checked(reply)["holder"]["verb"] == "lab.up"
    assert "lab.up (pid" in _shown(reply)


def test_list_and_config(bed: Bed) -> None:
    assert checked(status.list_labs(bed.session()))["labs"] == []
    assert "no labs" in _shown(status.list_labs(bed.session()))
    up(bed.session(), "b")
    bed.session().store.place("a")
    rows = checked(status.list_labs(bed.session()))["labs"]
    assert [(row["name"], row["state"]) for row in rows] == [("a", "half-made"), ("b", "running")]
    values = {row["key"]: row for row in checked(config.config(bed.session(image="debian-13")))["values"]}
    assert (values["image"]["value"], values["image"]["origin"]) == ("debian-13", "flag --image")
    assert values["engine"]["origin"] == "default"


@pytest.mark.parametrize("usable", [True, False])
def test_doctor_says_what_the_engine_says(bed: Bed, usable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def answer(_cache: Path, fresh: bool, kernel: Path | None, qemu: str) -> kvm.KvmAnswer:
        asked.append(fresh)
        return kvm.KvmAnswer(False, "a kernel booted under it hangs", False)

    bed.use(kvm=answer)
    bed.world.available = Availability(usable, "fake", "install it")
    reply = doctor(bed.session(), deep=True)
    document = checked(reply)
    assert (document["engines"][0]["usable"], reply.code) == (usable, 0 if usable else 11)
    assert (document["engines"][0]["facts"] is not None) is usable
    assert document["kvm"]["usable"] is False
    assert asked == [True]
    assert "hangs" in _shown(reply)


def test_doctor_names_nothing_that_a_mac_cannot_have(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    here = host(memory=1 << 28)
    mac = replace(here, os="macOS", memory_total=16 << 30, mac=facts.Mac("MacBookPro16,1", False), kvm=None)
    bed.use(host=lambda: mac)
    bed.use(kvm=lambda *_, **__: kvm.KvmAnswer(False, "Linux's", False))
    monkeypatch.setattr(packages, "find_program", lambda _name: None)  # no Homebrew either
    monkeypatch.setattr(sys, "platform", "darwin")
    reply = doctor(bed.session())
    shown = _shown(reply)
    assert "package qemu" in shown
    for word in ("None", "mmdebstrap", "syslinux", "qemu-system-x86\n", "apt-get", "libvirt", "hardware KVM"):
        assert word not in shown, word
    assert next(check for check in checked(reply)["checks"] if check["name"] == "memory")["status"] == "ok"
    monkeypatch.setattr(sys, "platform", "linux")
    bed.use(host=lambda: here)
    shown = _shown(doctor(bed.session()))
    assert "package mmdebstrap" in shown and "hardware KVM" in shown


def _cached(bed: Bed, name: str) -> cache.CachedImage:
    """A small image in the cache."""
    folder = bed.session().images / name
    folder.mkdir(parents=True)
    content = b"an image"
    (folder / "disk.qcow2").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = cache.Manifest(
        id=name,
        kind="guest",
        name="debian-13",
        file="disk.qcow2",
        format="qcow2",
        bytes=len(content),
        sha256=digest,
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )
    cache.seal(folder, manifest)
    return cache.CachedImage(folder, manifest)


def test_images_are_listed_with_who_uses_them_and_only_others_pruned(bed: Bed) -> None:
    kept, unused = _cached(bed, "debian-13-fake"), _cached(bed, "debian-13-old")
    up(bed.session(), NAME)  # stands on the first
    rows = checked(list_images(bed.session()))["images"]
    assert {row["id"]: row["in_use_by"] for row in rows} == {kept.id: [NAME], unused.id: []}
    (bed.session().images / ".debian-13-cut.part").mkdir()
    results = checked(prune(bed.session()))["results"]
    assert {(row["id"], row["kind"], row["result"]) for row in results} == {
        (kept.id, "guest", "kept"),
        (unused.id, "guest", "removed"),
        (".debian-13-cut.part", "leftover", "removed"),
    }
    assert kept.path.exists()
    assert not unused.folder.exists()


def _second(bed: Bed, tmp_path: Path, name: str) -> Session:
    """The session of another state folder on the same cache, with a lab in it."""
    other = Bed(tmp_path / "second", bed.patch)
    session = other.session(cache_dir=bed.session().settings.cache_dir)
    up(session, name)
    return session


def test_a_lab_of_another_state_folder_keeps_its_image_and_loses_it_when_destroyed(
    bed: Bed, tmp_path: Path
) -> None:
    kept = _cached(bed, "debian-13-fake")
    other = _second(bed, tmp_path, "elsewhere")
    assert other.images == bed.session().images
    rows = {row["id"]: row for row in checked(prune(bed.session()))["results"]}
    assert rows[kept.id]["result"] == "kept" and "elsewhere" in rows[kept.id]["why"]
    assert kept.path.exists()
    destroy(other, "elsewhere")
    rows = {row["id"]: row for row in checked(prune(bed.session()))["results"]}
    assert rows[kept.id]["result"] == "removed"


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("record", ['{"of": "a newer version"}', None, "rebuilt"])
def test_a_lab_whose_record_cannot_be_read_keeps_its_image(
    bed: Bed, marked: bool, record: str | None
) -> None:
    kept, unused = _cached(bed, "debian-13-fake"), _cached(bed, "debian-13-old")
    up(bed.session(), NAME)
    vdi = bed.session().settings.cache_dir / "virtualbox" / f"{kept.id}-12g.vdi"
    vdi.parent.mkdir(parents=True)
    vdi.touch()
    lab = bed.lab(NAME)
    (lab.vm_folder / "disk.qcow2").parent.mkdir(parents=True, exist_ok=True)
    (lab.vm_folder / "disk.qcow2").touch()
    if record is None:
        (lab.folder / "lab.json").unlink()
    elif record == "rebuilt":  # from the journal, which does not know the image
        lab.change(image="unknown")
    else:
        (lab.folder / "lab.json").write_text(record)
    if not marked:  # a lab of an earlier version
        shutil.rmtree(bed.session().images / "uses")
    rows = {row["id"]: row for row in checked(prune(bed.session()))["results"]}
    assert rows[kept.id]["result"] == "kept" and NAME in rows[kept.id]["why"]
    assert kept.path.exists() and vdi.exists()
    # Without a mark nobody knows which it is: all that it may be stay.
    assert unused.folder.exists() is not marked


def test_marks_of_what_is_gone_are_dropped_and_doubt_keeps(tmp_path: Path) -> None:
    images, labs = tmp_path / "cache", tmp_path / "state" / "labs"
    use = uses.Use(uuid="u", lab="a", folder=labs / "a")
    uses.mark(images, "x-1", use)
    assert uses.of(images, "x-1") == [use], "the state folder is not there: perhaps not mounted"
    (labs / "a").mkdir(parents=True)
    assert uses.of(images, "x-1") == [use], "its creation was cut short"
    lab = Lab(labs / "a")
    record = Record(
        name="a",
        uuid="u",
        created="2026-01-01T00:00:00+00:00",
        engine="qemu",
        image="x-1",
        cpus=1,
        memory_mib=1,
        disk_gib=1,
        paravirt="kvm",
        nested=True,
    )
    lab.write(record)
    assert uses.of(images, "x-1") == [use]
    lab.write(record.model_copy(update={"uuid": "v"}))
    assert uses.of(images, "x-1") == [], "another lab of that name"
    assert uses.marked(images) == ["x-1"]
    uses.mark(images, "x-1", use)
    shutil.rmtree(labs / "a")
    assert uses.of(images, "x-1") == [] and list((images / "uses/x-1").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"uuid": "u"}', None])
def test_a_mark_that_cannot_be_read_keeps_its_image(bed: Bed, content: str | None) -> None:
    """It is torn, of a newer version, or another user's: some lab stands on the image all the same."""
    kept = _cached(bed, "debian-13-old")
    mark = bed.session().images / "uses" / kept.id / "0b4c4f0e.json"
    mark.parent.mkdir(parents=True)
    if content is None:
        mark.mkdir()
    else:
        mark.write_text(content)
    rows = {row["id"]: row for row in checked(prune(bed.session()))["results"]}
    assert rows[kept.id]["result"] == "kept" and str(mark) in rows[kept.id]["why"]
    assert kept.path.exists() and mark.exists()


def test_marks_are_as_public_as_the_images(tmp_path: Path) -> None:
    """Who shares the cache and may remove from it must be able to read them."""
    uses.mark(tmp_path / "cache", "x-1", uses.Use(uuid="u", lab="a", folder=tmp_path))
    assert (tmp_path / "cache/uses/x-1/u.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "cache/uses/x-1").stat().st_mode & 0o055 == 0o055


def test_a_lab_begun_while_images_are_pruned_keeps_its_image(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _cached(bed, "debian-13-fake")
    use = uses.Use(uuid="u", lab="late", folder=bed.session().store.place("late").folder)
    owned = cache._owned

    def late(folder: Path) -> list[cache.CachedImage]:
        found = list(owned(folder))
        cache.mark_use(folder, entry.id, use)
        return found

    monkeypatch.setattr(cache, "_owned", late)
    assert cache.prune(bed.session().images, set()) == []
    assert entry.path.exists()


def test_a_damaged_image_is_found(bed: Bed) -> None:
    entry = _cached(bed, "debian-13-fake")
    reply = verify(bed.session())
    assert ([row["result"] for row in checked(reply)["results"]], reply.code) == (["verified"], 0)
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"AN IMAGE")
    reply = verify(bed.session())
    assert ([row["result"] for row in checked(reply)["results"]], reply.code) == (["bad"], 1)
    assert "damaged" in _shown(reply)


def test_only_images_that_there_are_are_built_or_fetched(bed: Bed) -> None:
    with pytest.raises(UsageError, match="plan9"):
        build(bed.session(), "plan9")
    with pytest.raises(UsageError, match="plan9"):
        fetch(bed.session(), "plan9")

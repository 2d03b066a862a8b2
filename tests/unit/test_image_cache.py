from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, UsageError
from lab.core.lock import beside, when_free
from lab.images import cache as images
from lab.images.cache import Manifest

CONTENT = b"a disk"
SHA = hashlib.sha256(CONTENT).hexdigest()


def add(cache: Path, name: str, *, kind: str = "guest", sealed: bool = True) -> Path:
    """An image as a builder leaves it: sealed by lab's helper, or with the bare manifest only."""
    manifest = {
        "schema": "lab.image/1",
        "id": name,
        "kind": kind,
        "name": "debian-13",
        "recipe": "0123456789ab",
        "file": "disk.qcow2",
        "format": "qcow2",
        "bytes": len(CONTENT),
        "sha256": SHA,
        "created": datetime(2026, 11, 22, tzinfo=UTC).isoformat(),
        "packages": {"openssh-server": "1:10.0"},
    }
    with images.lock(cache, name), files.building(cache / name) as work:
        (work / "disk.qcow2").write_bytes(CONTENT)
        if sealed:
            images.seal(work, Manifest.model_validate(manifest))
        else:
            files.write_json(work / "manifest.json", manifest)
    return cache / name


def test_an_image_is_listed_as_it_was_written(tmp_path: Path) -> None:
    folder = add(tmp_path, "debian-13-0123456789ab")
    (entry,) = images.entries(tmp_path)
    assert entry.path == folder / "disk.qcow2"
    assert entry.manifest.packages == {"openssh-server": "1:10.0"}
    assert entry.path.stat().st_mode & 0o777 == 0o444
    assert json.loads((folder / "manifest.json").read_text())["schema"] == "lab.image/1"
    images.verify(entry)
    images.check(entry)


def test_only_complete_images_of_lab_are_listed(tmp_path: Path) -> None:
    add(tmp_path, "good-1")
    (add(tmp_path, "fileless-1") / "disk.qcow2").unlink()
    add(tmp_path, "renamed-1").rename(tmp_path / "renamed-2")
    torn = add(tmp_path, "torn-1") / "manifest.json"
    torn.chmod(0o644)
    torn.write_text("{")
    (tmp_path / "strange").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "good-1")
    assert [entry.id for entry in images.entries(tmp_path)] == ["good-1"]
    assert images.entries(tmp_path / "absent") == []


@pytest.mark.parametrize("path", ["../disk.qcow2", "/etc/hostname", ""])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path, path: str) -> None:
    manifest = add(tmp_path, "debian-13-1", sealed=False) / "manifest.json"
    files.write_json(manifest, json.loads(manifest.read_text()) | {"file": path})
    assert images.entries(tmp_path) == []


def test_damage_of_the_same_size_is_found_by_both_checks(tmp_path: Path) -> None:
    add(tmp_path, "debian-13-1")
    (entry,) = images.entries(tmp_path)
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"b disk")
    os.utime(entry.path, ns=(1, 1))
    for look in (images.check, images.verify):
        with pytest.raises(BlockedError, match=f"expected sha256 {SHA}, observed"):
            look(entry)


def test_an_image_without_a_stamp_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "debian-13-1", sealed=False)
    (entry,) = images.entries(tmp_path)
    hashed: list[Path] = []
    real = files.sha256

    def sha256(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr("lab.core.files.sha256", sha256)
    images.check(entry)
    images.check(entry)
    assert hashed == [entry.path]


def test_prune_removes_what_no_lab_uses_and_what_was_left_over(tmp_path: Path) -> None:
    used, unused, fileless = (add(tmp_path, name) for name in ("used-1", "unused-1", "fileless-1"))
    (fileless / "disk.qcow2").unlink()
    leftover = tmp_path / ".canary-1.part"
    leftover.mkdir()
    (leftover / "image.tar").write_bytes(b"half")
    arriving = images.downloads(tmp_path)
    arriving.mkdir()
    for name in ("ubuntu-1.part", "ubuntu-1.part.json", "ubuntu-1.lock"):
        (arriving / name).write_text("x")
    removed = images.prune(tmp_path, {"used-1"})
    assert {item.path for item in removed} == {
        unused,
        fileless,
        leftover,
        arriving / "ubuntu-1.part",
        arriving / "ubuntu-1.part.json",
    }
    assert sum(item.bytes for item in removed if item.path == leftover) == 4
    assert used.is_dir()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["downloads", "locks", "used-1"]
    assert not list(arriving.iterdir())


def test_prune_leaves_what_is_not_labs(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "mine").mkdir()
    (cache / "notes.txt").write_text("x")
    (cache / ".hidden").mkdir()
    (cache / ".x.part").symlink_to(outside)
    before = sorted(cache.iterdir())
    assert images.prune(cache, set()) == []
    assert sorted(cache.iterdir()) == before
    assert (outside / "precious").exists()


def test_prune_leaves_what_somebody_works_on(tmp_path: Path) -> None:
    add(tmp_path, "old-1")
    (tmp_path / ".new-1.part").mkdir()
    download = images.downloads(tmp_path) / "ubuntu-1"
    download.parent.mkdir()
    part = download.with_name("ubuntu-1.part")
    part.write_bytes(b"half")
    with (
        images.lock(tmp_path, "old-1"),
        images.lock(tmp_path, "new-1"),
        when_free(beside(download), "a test"),
    ):
        assert images.prune(tmp_path, set()) == []
    assert part.exists()
    assert len(images.prune(tmp_path, set())) == 3


def test_a_lock_is_waited_for_with_a_message_and_leaves_no_file(tmp_path: Path) -> None:
    said: list[str] = []
    asked, entered = threading.Event(), threading.Event()

    def say(text: str) -> None:
        said.append(text)
        asked.set()

    def wait() -> None:
        with images.lock(tmp_path, "debian-13-1", say=say):
            entered.set()

    with images.lock(tmp_path, "debian-13-1"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert asked.wait(10)
        assert not entered.is_set()
    waiter.join(10)
    assert entered.is_set()
    assert said[0].startswith(f"waiting for process {os.getpid()} (image debian-13-1, since ")
    assert not list((tmp_path / "locks").iterdir())


def test_a_lock_that_does_not_come_free_names_the_holder(tmp_path: Path) -> None:
    with (
        images.lock(tmp_path, "debian-13-1"),
        pytest.raises(BusyError, match=f"process {os.getpid()} "),
        images.lock(tmp_path, "debian-13-1", deadline=Deadline.after(0)),
    ):
        pass


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "", "a b"])
def test_an_id_is_one_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError), images.lock(tmp_path, name):
        pass

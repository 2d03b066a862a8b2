"""Locks between real processes, and the folders of labs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lab.adb import AdbServer
from lab.core import lock
from lab.core.errors import BusyError, LabError, UsageError
from lab.guest import keys
from lab.records.labs import Lab, Store
from lab.records.record import new_record

_HOLDER = """
import sys, time
from pathlib import Path
from lab.core import lock
with lock.hold(Path(sys.argv[1]), "lab.up", "lab x"):
    print("held", flush=True)
    time.sleep(60)
"""


def _record(name: str):  # type: ignore[no-untyped-def]
    return new_record(
        name, engine="qemu", emulator="canary", cpus=2, memory_mib=64, disk_gib=4, paravirt="kvm", nested=True
    )


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.communicate()


def test_a_refusal_names_the_holder(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = held
    with (
        pytest.raises(BusyError, match=rf"lab x is held by `lab\.up` \(pid {process.pid}"),
        lock.hold(path, "lab.halt", "lab x"),
    ):
        pass
    found = lock.holder(path)
    assert found is not None
    assert (found.pid, found.verb) == (process.pid, "lab.up")


def test_a_killed_holder_holds_no_longer(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = held
    process.kill()
    process.wait()
    with lock.hold(path, "lab.up", "lab x"):
        assert lock.holder(path) is not None
    assert lock.holder(path) is None


def test_labs_are_found_by_name_and_the_nearest_is_hinted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lab = store.place("default")
    lab.write(_record("default"))
    assert store.get("default").record().uuid == lab.record().uuid
    with pytest.raises(UsageError) as refused:
        store.get("defualt")
    assert "default" in refused.value.hint


def test_a_half_made_lab_is_listed_and_says_how_to_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.place("half")
    assert [lab.name for lab in store.labs()] == ["half"]
    with pytest.raises(UsageError, match="never finished"):
        store.get("half").record()


def test_a_removal_cut_short_leaves_nothing_that_looks_like_a_lab(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lab = store.place("gone")
    lab.write(_record("gone"))
    lab.folder.rename(lab.folder.with_name(".gone.0123.gone"))  # what remove() does first
    assert store.labs() == []
    assert list(store.labs_folder.iterdir()) == []


def test_removing_a_lab_takes_its_lock_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lab = store.place("x")
    with lab.hold("lab.destroy"):
        lab.remove()
    assert list(store.labs_folder.iterdir()) == []
    with store.place("x").hold("lab.up"):
        assert lock.holder(store.place("x").lock_file) is not None


def test_a_lab_that_was_destroyed_while_it_was_waited_for_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command found the lab, and takes its lock when another one has just removed it."""
    store = Store(tmp_path)
    lab = store.place("x")
    late = store.get("x")
    take = lock.lock_descriptor

    def after_the_other(descriptor: int, **more: Any) -> bool:
        monkeypatch.setattr(lock, "lock_descriptor", take)
        with lab.hold("lab.destroy"):
            lab.remove()
        return take(descriptor, **more)

    monkeypatch.setattr(lock, "lock_descriptor", after_the_other)
    with pytest.raises(UsageError, match="no lab x"), late.hold("lab.halt"):
        pytest.fail("held what is gone")
    assert list(store.labs_folder.iterdir()) == []
    with pytest.raises(UsageError, match="no lab x"), late.hold("lab.halt"):
        pytest.fail("held what is gone")
    assert list(store.labs_folder.iterdir()) == []


def test_the_lock_of_a_folder_that_was_made_anew_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    lab, late = store.place("x"), store.get("x")
    take = lock.lock_descriptor

    def after_the_others(descriptor: int, **more: Any) -> bool:
        monkeypatch.setattr(lock, "lock_descriptor", take)
        lab.remove()
        (store.place("x").folder / "lock").touch()
        return take(descriptor, **more)

    monkeypatch.setattr(lock, "lock_descriptor", after_the_others)
    with pytest.raises(UsageError, match="no lab x"), late.hold("lab.halt"):
        pytest.fail("held another's")


def test_a_place_that_is_removed_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    place = Store.place

    def removed(self: Store, name: str) -> Lab:
        monkeypatch.setattr(Store, "place", place)
        lab = place(self, name)
        with lab.hold("lab.destroy"):
            lab.remove()
        return lab

    monkeypatch.setattr(Store, "place", removed)
    with store.making("x", "lab.up") as lab:
        lab.create(_record("x"))
    assert store.get("x").record().name == "x"


def test_nothing_stays_of_a_lab_in_which_nothing_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="refused"), store.making("x", "lab.up"):
        raise UsageError("refused")
    assert list(store.labs_folder.iterdir()) == []


def test_what_does_not_hold_the_lock_makes_no_folder_of_a_lab_that_is_gone(tmp_path: Path) -> None:
    lab = Store(tmp_path).place("x")
    lab.remove()
    for write in (
        lambda: keys.ensure(lab.folder / "keys", "x"),
        lambda: lab.journal.intend("process", "adb"),
        lambda: AdbServer(lab.adb_folder, lab.journal).ensure(),
    ):
        with pytest.raises(FileNotFoundError):
            write()
    assert list(Store(tmp_path).labs_folder.iterdir()) == []


def test_asking_who_holds_a_lock_refuses_it_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom lab.core import lock\nend = time.monotonic() + 4\n"
        "print('asks', flush=True)\nwhile time.monotonic() < end:\n    lock.holder(Path(sys.argv[1]))\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    try:
        assert asking.stdout is not None and asking.stdout.readline() == "asks\n"
        for _ in range(150):
            with lock.hold(path, "lab.up", "lab x"):
                pass
    finally:
        asking.kill()
        asking.communicate()


def test_who_asks_while_a_lock_is_held_leaves_it_alone(
    held: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process = held
    monkeypatch.setattr(lock, "lock_descriptor", lambda *_, **__: pytest.fail("it was taken"))
    found = lock.holder(path)
    assert found is not None and found.pid == process.pid


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1}', '{"more": 1}', "5"])
def test_a_note_that_cannot_be_read_is_nobodys(tmp_path: Path, note: str) -> None:
    path = tmp_path / "lock"
    path.touch()
    (tmp_path / "lock.holder").write_text(note)
    assert lock.holder(path) is None
    with FileLock(path):
        (tmp_path / "lock.holder").write_text(note)
        found = lock.holder(path)
        assert found is not None and found.pid == 0
        with pytest.raises(BusyError, match="another command"), lock.hold(path, "lab.up", "lab x"):
            pass
    with lock.hold(path, "lab.up", "lab x"):
        pass


def test_a_note_of_an_older_version_or_of_another_process_with_its_pid(tmp_path: Path) -> None:
    path, note = tmp_path / "lock", tmp_path / "lock.holder"
    path.touch()
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "verb": "lab.up", "since": "2026-01-01"}
    note.write_text(json.dumps(mine))
    assert lock.holder(path) is not None
    note.write_text(json.dumps(mine | {"started": 5.0}))
    assert lock.holder(path) is None


@pytest.mark.parametrize("content", ["null", "[]", "{", "\x00" * 64, '{"uuid": 1}'])
def test_a_record_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    lab = Store(tmp_path).place("x")
    lab.record_file.write_text(content)
    with pytest.raises(LabError, match="record of lab x cannot be read") as refused:
        lab.read()
    assert refused.value.evidence == [str(lab.record_file)]


def test_a_record_that_the_journal_says_was_written_is_no_half_made_lab(tmp_path: Path) -> None:
    lab = Store(tmp_path).place("x")
    lab.journal.intend("lab", "of a creation that was cut short")
    assert lab.read() is None
    lab.create(_record("x"))
    lab.record_file.unlink()
    with pytest.raises(LabError, match="cannot be read") as refused:
        lab.read()
    assert "journal" in refused.value.tail


def test_what_could_not_be_swept_is_no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.place(".x.0123.gone")
    monkeypatch.setattr("lab.records.labs.shutil.rmtree", lambda *_, **__: None)
    assert store.labs() == []


def test_images_in_use_are_those_of_readable_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.place("a").write(_record("a").model_copy(update={"image": "debian-13-abc"}))
    (store.place("b").folder / "lab.json").write_text('{"not": "a record"}')
    assert store.images_in_use() == {"debian-13-abc": ["a"]}

"""Locks between real processes, and the folders of labs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import lock
from lab.errors import BusyError, UsageError
from lab.store import Store, new_record

_HOLDER = """
import sys, time
from pathlib import Path
from lab import lock
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


def test_images_in_use_are_those_of_readable_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.place("a").write(_record("a").model_copy(update={"image": "debian-13-abc"}))
    (store.place("b").folder / "lab.json").write_text('{"not": "a record"}')
    assert store.images_in_use() == {"debian-13-abc": ["a"]}

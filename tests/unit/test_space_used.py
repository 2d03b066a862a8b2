"""What a lab and the cache take on the disk is counted, and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.core import files
from lab.tasks.image.list import list_images
from lab.tasks.lab.status import status
from tests.unit.bed import Bed, checked

MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path / "a"


def test_a_file_counts_and_so_does_it_deep_below(folder: Path) -> None:
    before = files.space_used(folder)
    (folder / "b" / "disk").write_bytes(os.urandom(MIB))
    assert MIB <= files.space_used(folder) - before < 2 * MIB


def test_holes_links_and_what_is_not_there_take_nothing(folder: Path) -> None:
    (folder / "disk").write_bytes(os.urandom(MIB))
    before = files.space_used(folder)
    os.link(folder / "disk", folder / "b" / "the same")
    (folder / "b" / "elsewhere").symlink_to("/usr")
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert files.space_used(folder) - before < MIB
    assert files.space_used(folder / "never") == 0


def test_status_and_the_list_of_images_tell_it(ready: Bed) -> None:
    lab = ready.lab()
    before = checked(status(ready.session(), "default"))["disk_bytes"]
    (lab.folder / "vm").mkdir(exist_ok=True)
    (lab.folder / "vm" / "more").write_bytes(os.urandom(3 * MIB))
    assert checked(status(ready.session(), "default"))["disk_bytes"] - before >= 3 * MIB
    cached = checked(list_images(ready.session()))["disk_bytes"]
    other = ready.session().settings.cache_dir / "virtualbox"
    other.mkdir(parents=True)
    (other / "disk.vdi").write_bytes(os.urandom(3 * MIB))
    assert checked(list_images(ready.session()))["disk_bytes"] - cached >= 3 * MIB

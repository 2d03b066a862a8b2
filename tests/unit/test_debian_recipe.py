"""The recipes of Debian disks: the lab VM's, and that of an emulated PC's system."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.images import debian, making
from lab.rehearsal import image


def test_both_recipes_are_sound_and_no_link_leads_nowhere() -> None:
    guest, system = debian.recipe(), image.recipe()
    assert (guest.components, guest.apt_options) == (["main"], [])
    assert (system.suite, system.components) == ("sid", ["main", "contrib"])
    for folder in (debian.SOURCES, image.SOURCES):
        for path in folder.rglob("*"):
            assert path.exists(), path
        for hook in (folder / "hooks").iterdir():
            assert hook.stat().st_mode & 0o111, hook
    assert debian.recipe_hash() != image.recipe_hash()


def test_a_change_to_what_is_linked_renames_the_image_too(tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(debian.SOURCES, copy / "guest", symlinks=True)
    (copy / "host").mkdir()
    (copy / "host" / "init").symlink_to("../guest/boot/init")
    before = making.digest_of(copy / "host", [])
    (copy / "guest" / "boot" / "init").write_text("changed")
    assert making.digest_of(copy / "host", []) != before

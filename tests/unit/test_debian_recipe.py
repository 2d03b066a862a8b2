"""The recipes of Debian disks: lab's own, and the one that tier e2e-virtualbox builds in the same way."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.images import debian
from tests.e2e_virtualbox import RECIPE


def test_both_recipes_are_sound_and_no_link_leads_nowhere() -> None:
    guest, host = debian.recipe(), debian.recipe(RECIPE)
    assert (guest.components, guest.apt_options) == (["main"], [])
    assert (host.suite, host.components, host.docker) == ("sid", ["main", "contrib"], [])
    for folder in (debian.SOURCES, RECIPE):
        for path in folder.rglob("*"):
            assert path.exists(), path
        for hook in (folder / "hooks").iterdir():
            assert hook.stat().st_mode & 0o111, hook
    assert debian.recipe_hash() != debian.recipe_hash(RECIPE)


def test_a_change_to_what_is_linked_renames_the_image_too(tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(debian.SOURCES, copy / "guest", symlinks=True)
    (copy / "host").mkdir()
    (copy / "host" / "init").symlink_to("../guest/boot/init")
    before = debian.recipe_hash(copy / "host")
    (copy / "guest" / "boot" / "init").write_text("changed")
    assert debian.recipe_hash(copy / "host") != before

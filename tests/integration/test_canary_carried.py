"""The canary is the same wherever it is built, and what one machine exports another one imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.steps import Steps
from lab.images import cache, canary, portable
from lab.images.canary_recipe import X86
from tests.integration import l2

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("image.tar", "vmlinuz")
_BUILD = """
import os, sys
from pathlib import Path
from lab.images import canary
from lab.core.steps import Steps
os.umask(int(sys.argv[1], 8))
with Steps().step("build") as step:
    print(canary.build(Path(sys.argv[2]), step, sys.argv[3]).id)
"""


def test_the_same_packages_give_the_same_bytes_whatever_the_machine_is_set_to(tmp_path: Path) -> None:
    """Time, time zone, language, umask and the order of sets and folders are in none of them."""
    mirror, downloads = l2.debian_archive(), tmp_path / "downloads"
    archive, deadline = canary.archive(mirror), Deadline.after(600)
    packages = archive.resolve(canary.recipe().packages(X86)["amd64"], deadline)
    with Steps().step("fetch") as step:
        archive.extract(packages, downloads, tmp_path / "tree.tar", step, deadline)
    image_id = canary.id_of({package.name: package.version for package in packages})
    made = []
    for umask, settings in (
        ("022", {"TZ": "UTC", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        ("077", {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "99", "PYTHONUTF8": "1"}),
    ):
        images = tmp_path / umask
        debs = images / "downloads" / image_id
        debs.mkdir(parents=True)
        # By turns in another order: it is that of a folder's entries.
        for deb in sorted(downloads.glob("*.deb"), reverse=bool(made)):
            os.link(deb, debs / deb.name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        words = [sys.executable, "-c", _BUILD, umask, str(images), mirror]
        done = subprocess.run(
            words, env=kept | settings, cwd=ROOT, capture_output=True, text=True, timeout=400
        )
        assert done.stdout.strip() == image_id, done.stderr
        made.append(images / image_id)
    for name in NAMES:
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in made]
    assert manifests[0].pop("created") != manifests[1].pop("created")
    assert manifests[0] == manifests[1]


def test_a_built_canary_is_carried_to_a_machine_that_has_none(tmp_path: Path) -> None:
    built, file, other = l2.image(), tmp_path / "canary.tar", tmp_path / "cache"
    portable.write(built, file)
    listed = subprocess.run(["tar", "--list", "--file", file], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["manifest.json", *NAMES], "any tar reads it"
    with Steps().step("import") as step:
        imported, new = portable.read(file, other, step)
    assert new and imported.id == built.id
    assert canary.find(other) == imported
    cache.verify(imported)
    assert imported.manifest.as_json() == built.manifest.as_json()
    for name in NAMES:
        assert (imported.folder / name).read_bytes() == (built.folder / name).read_bytes()
    assert {path.name for path in other.iterdir()} == {imported.id, "locks"}
    cache.check(imported)
    portable.write(imported, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == file.read_bytes()

"""The Python that lab brings to a machine without one: Debian's packages, in a root that has only a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import l2
import pytest
from platformdirs import user_cache_path
from test_attach_ssh import Road, pytestmark, road

from lab.core.errors import BlockedError
from lab.core.steps import Steps
from lab.engines.attached import link as links
from lab.guest import python
from lab.images import cache, carried_python
from lab.images.canary_recipe import Architecture
from lab.probes.kvm import CpuFacts, Probe, parsed, script
from lab.tasks.lab import detach
from lab.workflow import attached, carrying
from tests.unit.bed import checked

__all__ = ["pytestmark", "road"]

_LARGEST = 10 << 20
_NAMESPACES = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _built(architecture: Architecture) -> cache.CachedImage:
    """The tar in the user's own cache, built if it is not there."""
    base = os.environ.get("LAB_CACHE_DIR") or user_cache_path("lab", appauthor=False)
    images = Path(base) / "images"
    if (known := carried_python.find(images, architecture)) is not None:
        return known
    with Steps().step("python") as step:
        return carried_python.build(images, step, l2.debian_archive(), architecture)


@pytest.fixture(scope="module")
def image() -> cache.CachedImage:
    return _built("amd64")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, image: cache.CachedImage) -> Path:
    """A root with a static shell, Python where lab unpacks it, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    root, made = l2.unpack(l2.image(), folder / "canary"), folder / "root"
    for name in ("bin", "dev", "proc", "tmp", "lab"):
        (made / name).mkdir(parents=True)
    (made / "bin" / "busybox").write_bytes((root / "bin" / "busybox").read_bytes())
    (made / "bin" / "busybox").chmod(0o755)
    (made / "bin" / "sh").symlink_to("busybox")
    with tarfile.open(image.path) as tar:
        tar.extractall(made / "lab", filter="data")
    if subprocess.run([*_NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make namespaces here")
    return made


def _inside(root: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [*_NAMESPACES, f"--root={root}", "--wd=/", f"/lab/{carried_python.PROGRAM}", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60)


def test_it_is_small_and_named_by_its_packages(image: cache.CachedImage) -> None:
    cache.verify(image)
    assert image.manifest.bytes < _LARGEST
    assert set(image.manifest.packages) == set(carried_python.recipe().packages)


def test_all_that_labs_scripts_import_is_in_it(bare: Path) -> None:
    done = _inside(bare, "-B", "-c", f"import ctypes, {', '.join(python.modules())}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "model"), [("kvm_probe.py", Probe), ("cpu_facts.py", CpuFacts)])
def test_the_probes_run_under_it_where_nothing_else_is(
    bare: Path, name: str, model: type[Probe | CpuFacts]
) -> None:
    done = _inside(bare, "-B", "-", stdin=script(name))
    answer = parsed(model, done.stdout, done.stderr)
    if isinstance(answer, Probe):
        assert answer.device.absent
    assert not list(bare.rglob("*.pyc"))


def test_that_for_arm64_has_it_all_too(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("needs qemu-user-static")
    with tarfile.open(_built("arm64").path) as tar:
        tar.extractall(tmp_path, filter="data")
    (loader,) = tmp_path.glob("lib/ld-linux-*")
    words = [
        emulator,
        loader,
        "--library-path",
        tmp_path / "lib",
        tmp_path / "usr/bin/python3.13",
        "-I",
        "-B",
    ]
    done = subprocess.run(
        [*words, "-c", "import ctypes, json, mmap, os, resource; print(os.uname().machine)"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "aarch64\n"), done.stderr


@pytest.fixture
def without_python(road: Road, image: cache.CachedImage) -> Road:
    """A machine whose `python3` is none, and a session that finds the tar in its cache."""
    program = road.folder / "bin" / "python3"
    program.write_text("#!/bin/sh\necho 'sh: python3: not found' >&2\nexit 127\n")
    program.chmod(0o755)
    road.session.settings = road.session.settings.model_copy(update={"cache_dir": image.folder.parents[1]})
    road.know(road.jump, road.box)
    return road


def test_a_machine_without_python_is_attached_with_labs_own(without_python: Road) -> None:
    road = without_python
    document = road.attach()
    assert "it has no Python that will do, so lab brought one into its own folder there" in document["notes"]
    link = links.read(road.bench().lab.vm_folder)
    assert link and link.about and link.about.python.startswith("3.13.")
    folder = attached.folder(road.bench().record())
    assert link.python[0].startswith(f"{folder}/python-")
    with road.bench().new_guest() as guest:
        assert python.run(guest, "cpu_facts.py").out.startswith('{"schema": "lab.cpu_facts/1"')
        began = Path(link.python[0]).stat().st_ino
        carrying.words(road.session, guest, "it has no python3")
        assert Path(link.python[0]).stat().st_ino == began, "what is there is not brought again"
        brought = Path(link.python[0]).parent
        brought.rename(f"{brought}.part")  # as a copy that was cut short leaves it
        assert carrying.words(road.session, guest, "it has no python3") == link.python
        assert Path(link.python[0]).exists() and not Path(f"{brought}.part").exists()
    checked(detach.detach(road.session, "box"))
    assert not Path(folder).exists()


def test_where_it_cannot_be_had_both_reasons_are_told(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    program = road.folder / "bin" / "python3"
    program.write_text("#!/bin/sh\nexit 127\n")
    program.chmod(0o755)
    road.know(road.jump, road.box)
    monkeypatch.setattr("lab.images.apt_sources.debian_archive", lambda: None)
    with pytest.raises(BlockedError, match="it has no python3, and no Python can be brought") as caught:
        road.attach()
    assert "install it there" in caught.value.hint
    assert road.session.store.labs() == []

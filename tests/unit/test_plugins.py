"""Engines, emulators and reporters of packages beside lab."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lab import engines
from lab.config.loading import PROJECT
from lab.core import plugins
from lab.core.errors import BlockedError, UsageError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, for packages of a test's own."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def _install(site: Path, package: str, points: str) -> None:
    """A distribution as pip leaves one, with its entry points."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def test_a_package_brings_an_engine(site: Path) -> None:
    (site / "hyperv_for_lab.py").write_text("def create(options):\n    return ('hyper-v', options)\n")
    _install(site, "lab-hyperv", "[lab.engines]\nhyperv = hyperv_for_lab:create\n")

    assert plugins.names("lab.engines") == ("virtualbox", "qemu", "hyperv")
    assert plugins.names("lab.emulators") == ("canary", "docker-android")
    assert plugins.load("lab.engines", "hyperv")("options") == ("hyper-v", "options")


def test_an_unknown_name_is_a_usage_error_with_the_nearest_words(site: Path) -> None:
    _install(site, "lab-hyperv", "[lab.engines]\nhyperv = hyperv_for_lab:create\n")
    with pytest.raises(UsageError, match="there is no engine `hyprv`") as caught:
        plugins.load("lab.engines", "hyprv")
    assert caught.value.hint == "nearest: hyperv"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_for_lab'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("other = 1", "AttributeError: module 'broken_for_lab' has no attribute 'create'"),
        ("create = 1", "TypeError: it cannot be called"),
    ],
)
def test_one_that_cannot_be_loaded_names_its_package_and_spoils_no_other(
    site: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, why: str
) -> None:
    if content is not None:
        (site / "broken_for_lab.py").write_text(content)
    _install(site, "lab-broken", "[lab.emulators]\nbroken = broken_for_lab:create\n")
    monkeypatch.delitem(sys.modules, "broken_for_lab", raising=False)

    assert plugins.names("lab.emulators") == ("canary", "docker-android", "broken")
    assert plugins.load("lab.emulators", "canary").__name__ == "CanaryKind"
    with pytest.raises(BlockedError) as caught:
        plugins.load("lab.emulators", "broken")
    assert caught.value.what == (
        "the emulator `broken` of the package lab-broken cannot be loaded from broken_for_lab:create: " + why
    )
    assert caught.value.hint == "mend or uninstall lab-broken"
    monkeypatch.delitem(sys.modules, "broken_for_lab", raising=False)


def test_a_package_cannot_replace_labs_own_nor_take_a_word_of_lab(site: Path) -> None:
    _install(
        site,
        "lab-false",
        "[lab.engines]\nqemu = false_for_lab:create\nauto = false_for_lab:create\n"
        "[lab.emulators]\nnone = false_for_lab:create\n",
    )
    assert plugins.names("lab.engines") == ("virtualbox", "qemu")
    assert plugins.load("lab.engines", "qemu") is engines.kind("qemu")
    assert plugins.names("lab.emulators") == ("canary", "docker-android")


def test_two_packages_with_one_name_are_refused(site: Path) -> None:
    for package in ("lab-two", "lab-one"):
        _install(site, package, "[lab.reporters]\npdf = pdf_for_lab:Pdf\n")
    with pytest.raises(UsageError, match="several packages bring a reporter `pdf`: lab-one, lab-two"):
        plugins.load("lab.reporters", "pdf")


def test_labs_own_are_what_pyproject_declares_and_all_load() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared == plugins.OWN
    for group, own in plugins.OWN.items():
        for name in own:
            assert callable(plugins.load(group, name))


def test_nothing_is_searched_before_it_is_asked_for() -> None:
    program = (
        "import lab.engines, lab.emulators, lab.core.plugins as p\n"
        "p.entry_points = None\n"
        "assert p.load('lab.engines', 'qemu')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

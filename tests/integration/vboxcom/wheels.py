"""vboxapi as it came with each version: enums and glue are the real ones, fetched once into lab's cache."""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.config import load
from lab.core import files, lock, proc
from lab.core.deadline import Deadline

_LOCK = Path(__file__).with_name("wheels.lock")
_PINNED = re.compile(r"^(vbox-sdk==((\d+\.\d+)\.\d+) --hash=sha256:([0-9a-f]{64}))$", re.MULTILINE)
_SECONDS = 300.0


@dataclass(frozen=True)
class Pinned:
    requirement: str
    version: str
    digest: str


def pinned() -> dict[str, Pinned]:
    """By series, such as "7.1"."""
    return {
        series: Pinned(line, version, digest)
        for line, version, series, digest in _PINNED.findall(_LOCK.read_text())
    }


@lru_cache
def folder(series: str) -> Path:
    """The folder in which the series' package `vboxapi` is."""
    wanted = pinned()[series]
    final = load().cache_dir / "test-wheels" / f"vbox-sdk-{wanted.version}-{wanted.digest[:12]}"
    with lock.when_free(lock.beside(final), f"the tests' vbox-sdk {wanted.version}"):
        if not final.is_dir():
            with files.building(final) as work:
                _download(wanted, work)
    return final


def _download(wanted: Pinned, work: Path) -> None:
    only = work / "requirements.txt"
    only.write_text(wanted.requirement + "\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    proc.run([*pip, "--require-hashes", "-r", only, "-d", work], deadline=Deadline.after(_SECONDS))
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work)
    wheel.unlink()


@lru_cache
def constants(series: str) -> Any:
    """The series' VirtualBoxReflectionInfo, with numbers as XPCOM has them."""
    path = folder(series) / "vboxapi/VirtualBox_constants.py"
    spec = importlib.util.spec_from_file_location(f"constants_{series.replace('.', '_')}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VirtualBoxReflectionInfo(False)

"""An image's way into L1's Docker: real scripts in a real shell, and a docker of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core.errors import BlockedError, LabError
from lab.core.steps import Steps
from lab.emulators import transfer
from lab.emulators.transfer import ImageArchive, Transfer
from lab.guest.ssh import Guest, Result
from lab.guest.terms import OWN

ID, OTHER = "sha256:of-the-archive", "sha256:of-something-else"
INSPECTED = json.dumps([{"Id": ID}])
KNOWS = f"case $1$2 in imageinspect) echo '{INSPECTED}' ;; esac"
LOADED = f"""case $1$2 in
imageinspect) [ -e LOADED ] && echo '{INSPECTED}' ;;
load--quiet) touch LOADED ;;
esac"""
TORN = 'case $1 in load) echo "unexpected EOF" >&2; exit 1 ;; version) ;; *) exit 1 ;; esac'
FULL = (
    'case $1 in load) echo "write /x: no space left on device" >&2; exit 1 ;; version) ;; *) exit 1 ;; esac'
)
NO_DOCKER = 'echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock" >&2; exit 1'
GIB = 1 << 30
_MOST = 1 << 20
"""Bytes that the tests really copy, at most."""


class Shell:
    """L1 with a folder of its own in the place of /var/tmp, and the free space that the test gives it."""

    terms = OWN

    def __init__(self, folder: Path, docker: str) -> None:
        self.folder = folder
        self._program("docker", docker.replace("LOADED", str(folder / "loaded")))
        self.copies = 0

    def _program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def has(self, *free: tuple[int, str]) -> None:
        """`df`'s answer: bytes free and where, for /var/tmp and for Docker's folder."""
        rows = "\n".join(f"/dev/vda1 99 9 {left} 9% {place}" for left, place in free)
        self._program("df", f"echo 'Filesystem 1-blocks Used Available Capacity Mounted on'\necho '{rows}'")

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            env={"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"},
            check=False,
            timeout=20,
        )
        assert done.returncode == 0 or not check, done.stderr
        return Result(list(argv), done.stdout, done.stderr, done.returncode, 0.0)

    def exists(self, remote: str) -> bool:
        return Path(remote).exists()

    def put(self, local: Path, remote: str, _progress: Any, *, resume: bool) -> None:
        self.copies += 1
        assert local.stat().st_size < _MOST, "a hole that is copied is no hole any more, and fills the disk"
        shutil.copy(local, remote)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageArchive:
    monkeypatch.setattr(transfer, "_FOLDER", str(tmp_path))
    path = tmp_path / "image.tar"
    path.write_bytes(b"an image")
    return ImageArchive(path, "0" * 64, "lab/x:1", ID, ())


def upload(moved: Transfer, shell: Shell) -> str:
    with Steps().step("upload") as step:
        moved.upload(cast(Guest, shell), step)
        return step.result


def load(moved: Transfer, shell: Shell) -> None:
    with Steps().step("load") as step:
        moved.load(cast(Guest, shell), step)


def test_image_is_copied_loaded_and_its_copy_gone(tmp_path: Path, archive: ImageArchive) -> None:
    shell, moved = Shell(tmp_path, LOADED), Transfer(archive)
    assert "MB copied" in upload(moved, shell)
    load(moved, shell)
    assert (
        (tmp_path / "loaded").exists()
        and not shell.exists(moved._remote(cast(Guest, shell)))
        and moved.named(ID)
    )


@pytest.mark.parametrize(
    ("docker", "error", "what"), [(TORN, LabError, "failed"), (FULL, BlockedError, "full")]
)
def test_copy_that_does_not_load_is_not_trusted_again(
    tmp_path: Path, archive: ImageArchive, docker: str, error: type[LabError], what: str
) -> None:
    shell, moved = Shell(tmp_path, docker), Transfer(archive)
    Path(moved._remote(cast(Guest, shell))).write_text("torn by a power cut")
    with pytest.raises(error, match=what):
        load(moved, shell)
    assert not shell.exists(moved._remote(cast(Guest, shell))), "the next try would load it again"
    # The next one has it anew.
    again = Shell(tmp_path, LOADED)
    load(Transfer(archive), again)
    assert again.copies == 1


def test_copy_is_kept_while_docker_does_not_answer(tmp_path: Path, archive: ImageArchive) -> None:
    shell, moved = Shell(tmp_path, NO_DOCKER), Transfer(archive)
    Path(moved._remote(cast(Guest, shell))).write_bytes(archive.path.read_bytes())
    with pytest.raises(LabError, match="does not answer"):
        load(moved, shell)
    assert shell.exists(moved._remote(cast(Guest, shell)))


def test_image_that_is_another_is_refused(tmp_path: Path, archive: ImageArchive) -> None:
    shell = Shell(tmp_path, LOADED.replace(ID, OTHER))
    with pytest.raises(LabError, match="something else"):
        load(Transfer(archive), shell)


def _sized(tmp_path: Path, archive: ImageArchive, size: int) -> Transfer:
    with archive.path.open("r+b") as stream:
        stream.truncate(size)  # a hole: nothing is written
    return Transfer(archive)


@pytest.mark.parametrize(
    ("free", "missing"),
    [
        ([(9 * GIB, "/"), (9 * GIB, "/")], ""),
        (
            [(9 * GIB - 1, "/"), (9 * GIB - 1, "/")],
            "needs 9.0 GiB at least of the VM's disk (/), and 9.0 GiB",
        ),
        ([(3 * GIB, "/"), (6 * GIB, "/var/lib/docker")], ""),
        (
            [(2 * GIB, "/"), (99 * GIB, "/var/lib/docker")],
            "needs 3.0 GiB at least of the VM's disk (/), and 2.0",
        ),
        (
            [(99 * GIB, "/"), (5 * GIB, "/var/lib/docker")],
            "needs 6.0 GiB at least of the VM's disk (/var/lib/d",
        ),
        ([], ""),
    ],
)
def test_image_that_has_no_room_is_not_copied(
    tmp_path: Path,
    archive: ImageArchive,
    monkeypatch: pytest.MonkeyPatch,
    free: list[tuple[int, str]],
    missing: str,
) -> None:
    monkeypatch.setattr(Shell, "put", lambda self, *_, **__: setattr(self, "copies", self.copies + 1))
    shell, moved = Shell(tmp_path, "exit 1"), _sized(tmp_path, archive, 3 * GIB)
    shell.has(*free)
    if not missing:
        upload(moved, shell)
        assert shell.copies == 1
        return
    with pytest.raises(BlockedError) as caught:
        upload(moved, shell)
    assert missing in caught.value.what and "vm.disk_gib" in caught.value.hint and shell.copies == 0


def test_part_that_was_copied_is_not_asked_for_again(
    tmp_path: Path, archive: ImageArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Shell, "put", lambda *_, resume: None if resume else pytest.fail("from the beginning")
    )
    shell, moved = Shell(tmp_path, "exit 1"), _sized(tmp_path, archive, 3 * GIB)
    with Path(f"{moved._remote(cast(Guest, shell))}.part").open("wb") as stream:
        stream.truncate(2 * GIB)
    shell.has((7 * GIB, "/"), (7 * GIB, "/"))
    upload(moved, shell)


def test_real_df_is_read(tmp_path: Path, archive: ImageArchive) -> None:
    """This machine's own: no image needs as much as that."""
    moved = _sized(tmp_path, archive, 1 << 42)
    with pytest.raises(BlockedError, match=r"12288\.0 GiB at least"):
        upload(moved, Shell(tmp_path, "exit 1"))

"""Socket paths are bounded by the kernel, and temp folders are shared with others."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import BlockedError
from lab.engines.qemu.layout import SOCKET_PATH_BYTES, QemuLayout, make_private

UUID = "5b0b2f4e-7a52-4e0f-9d3d-3f0c7d0d8a11"


@given(st.integers(1, 300), st.sampled_from("aé"))
def test_the_socket_always_fits(length: int, letter: str) -> None:
    folder = Path("/") / (letter * length)
    path = QemuLayout(folder, UUID).socket
    assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES
    near = folder / "qmp.sock"
    assert (path == near) == (len(os.fsencode(near)) <= SOCKET_PATH_BYTES)


def test_the_limit_is_the_kernels(tmp_path: Path) -> None:
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    with socket.socket(socket.AF_UNIX) as fits:
        fits.bind(str(tmp_path / ("s" * room)))
    with socket.socket(socket.AF_UNIX) as exceeds, pytest.raises(OSError, match="too long"):
        exceeds.bind(str(tmp_path / ("s" * (room + 1))))


def test_labs_do_not_share_a_short_folder() -> None:
    deep = Path("/" + "d" * 200)
    other = UUID.replace("5b0b", "6c1c")
    assert QemuLayout(deep, UUID).socket.parent != QemuLayout(deep, other).socket.parent


def test_only_a_private_folder_will_do(tmp_path: Path) -> None:
    private = tmp_path / "private"
    make_private(private)
    make_private(private)
    assert private.stat().st_mode & 0o777 == 0o700
    private.chmod(0o755)
    with pytest.raises(BlockedError):
        make_private(private)
    private.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(private)
    with pytest.raises(BlockedError):
        make_private(link)

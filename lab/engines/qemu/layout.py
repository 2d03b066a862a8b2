"""The files of one machine, and where its control socket can be."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from lab.core.errors import BlockedError

SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""What the kernel takes as a socket's path, without the final NUL."""


class QemuLayout:
    """Every path the engine writes for one machine: `folder` is the engine's own of the lab."""

    def __init__(self, folder: Path, uuid: str) -> None:
        self.folder = folder
        self.disk = folder / "disk.qcow2"
        """The overlay, which also holds snapshots and a suspended machine's memory."""
        self.disk_part = folder / "disk.qcow2.part"
        """The overlay while it is made; it is renamed when whole."""
        self.process = folder / "process.json"
        self.hardware = folder / "saved-hardware.json"
        """The virtual hardware of each saved state: memory only fits the hardware it was saved on."""
        self.pid = folder / "qemu.pid"
        self.log = folder / "qemu.log"
        self.console = folder / "console.log"
        self.resolver = folder / "resolv.conf"
        """What QEMU sees as /etc/resolv.conf in a network namespace of its own."""
        self._short = f"lab-{os.getuid()}-{uuid.replace('-', '')[:16]}"

    @property
    def socket(self) -> Path:
        """QEMU's control socket."""
        return self._socket("qmp.sock")

    @property
    def network(self) -> Path:
        """slirp4netns' control socket."""
        return self._socket("net.sock")

    def _socket(self, name: str) -> Path:
        """In the folder, or, when that path is too long, in a short one."""
        near = self.folder / name
        if _fits(near):
            return near
        for root in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - a private folder in it
            short = root / self._short / name
            if _fits(short):
                return short
        raise BlockedError(
            "no folder's path is short enough for the control socket",
            hint=f"set TMPDIR to a folder whose path is under {SOCKET_PATH_BYTES - 50} bytes",
        )

    def owns(self, socket: Path) -> bool:
        """Whether a control socket's recorded path is one this layout makes: a record may have been copied
        along with another lab's folder."""
        return socket.parent == self.folder or socket.parent.name == self._short

    def files(self) -> list[Path]:
        """All the engine may leave in the folder (the sockets may be elsewhere)."""
        own = [path for path in vars(self).values() if isinstance(path, Path) and path != self.folder]
        return [*own, self.folder / "qmp.sock", self.folder / "net.sock"]


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES


def make_private(folder: Path) -> None:
    """Make `folder` for this user alone, or check that it is so.

    Raises BlockedError when somebody else's file or folder is there: a shared temp folder is
    a place where others may have put one on purpose.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    actual = folder.lstat()
    if not stat.S_ISDIR(actual.st_mode) or actual.st_uid != os.getuid() or actual.st_mode & 0o077:
        raise BlockedError(
            f"{folder} exists and is not a private folder of this user",
            hint="remove it, or set TMPDIR to a folder of your own",
        )

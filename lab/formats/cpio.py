"""A cpio archive in the format the kernel unpacks as initramfs (newc), the same bytes each time."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CpioEntry:
    """A file, folder or symbolic link (its target is the data); owner root, no time."""

    mode: int
    data: bytes = b""

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @classmethod
    def file(cls, data: bytes, permissions: int = 0o644) -> CpioEntry:
        """A regular file."""
        return cls(stat.S_IFREG | permissions, data)

    @classmethod
    def link(cls, target: str) -> CpioEntry:
        """A symbolic link."""
        return cls(stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def folder(cls, permissions: int = 0o755) -> CpioEntry:
        """A folder, empty by itself."""
        return cls(stat.S_IFDIR | permissions)


def with_folders(entries: Mapping[str, CpioEntry]) -> dict[str, CpioEntry]:
    """`entries` (by path without a leading slash) with each missing parent folder, sorted."""
    whole = dict(entries)
    for path in entries:
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            whole.setdefault("/".join(parts[: depth + 1]), CpioEntry.folder())
    return dict(sorted(whole.items()))


def pack(entries: Mapping[str, CpioEntry]) -> bytes:
    """The archive; paths have no leading slash."""
    out = bytearray()
    for number, (path, entry) in enumerate(with_folders(entries).items(), start=1):
        _append(out, number, path, entry)
    _append(out, 0, "TRAILER!!!", CpioEntry(0))
    return bytes(out)


def _append(out: bytearray, inode: int, path: str, entry: CpioEntry) -> None:
    name = path.encode() + b"\0"
    links = 2 if entry.is_folder else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)

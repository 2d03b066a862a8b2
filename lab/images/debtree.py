"""A Debian tree kept as the tar file mmdebstrap wrote: files are picked out of it, nothing is unpacked."""

from __future__ import annotations

import functools
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lab.core.errors import LabError

LIBRARY_FOLDERS = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
"""A tree is of one architecture, and has the folders of that one."""
_MAX_LINKS = 20
# Debian's merged /usr: the links are in base-files, which an extracted package set may lack.
_MERGED = ("/bin", "/sbin", "/lib", "/lib64")


class DebianTree(AbstractContextManager["DebianTree"]):
    """Read files by absolute path, following symbolic links as a running system would."""

    def __init__(self, tar: Path) -> None:
        self._tar = tarfile.open(tar)  # noqa: SIM115 - closed by __exit__
        self._members = {"/" + member.name.removeprefix("./"): member for member in self._tar}

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def resolve(self, path: str) -> tarfile.TarInfo | None:
        """The file that `path` leads to, or None."""
        for _ in range(_MAX_LINKS):
            top = "/" + path.split("/")[1]
            if top in _MERGED:
                path = "/usr" + path
            member = self._members.get(path)
            if member is None or not (member.issym() or member.islnk()):
                return member
            folder = posixpath.dirname(path) if member.issym() else "/"
            path = posixpath.normpath(posixpath.join(folder, member.linkname))
        return None

    @functools.lru_cache(maxsize=256)  # noqa: B019 - one tree lives as long as one build
    def read(self, path: str) -> bytes | None:
        """A file's content, or None where there is no such file."""
        member = self.resolve(path)
        stream = self._tar.extractfile(member) if member is not None and member.isfile() else None
        return stream.read() if stream else None

    def need(self, path: str) -> bytes:
        """A file's content. Raises LabError when it is missing: the recipe does not fit the packages."""
        data = self.read(path)
        if data is None:
            raise LabError(f"{path} is not in the extracted packages", hint="the recipe needs an update")
        return data

    def under(self, folder: str) -> Iterator[str]:
        """Paths of the files below a folder, sorted."""
        prefix = folder.rstrip("/") + "/"
        return iter(sorted(path for path in self._members if path.startswith(prefix)))
